"""A stranger's record with anything anywhere: no pass, no traceback, nothing a terminal obeys.

Every value and every name of a whole record is replaced in turn, taken away, and given twice.
The reproduction it is judged with is far off: whatever is done to the author's record by one
change, it must not come out as reproduced.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runs.records import ACCURACY, accuracies, record, run, whole
from tests.runs.test_wording import NASTY

from torchship import canonical, render
from torchship.cli import torchship
from torchship.digest import Digest
from torchship.display import clean
from torchship.errors import RecordError
from torchship.export import provenance
from torchship.runs import statement
from torchship.runs.expectation import expectation
from torchship.runs.inside import Facts
from torchship.runs.listing import ListedRecord, Listing
from torchship.runs.publishing import Published
from torchship.runs.verdict import compare
from torchship.runs.wording import as_document, told

HONEST = json.loads(statement.encode(whole()))
FAR_OFF = record(
    *(run(seed, test_accuracy=0.1 + seed / 1000, test_loss=9.0) for seed in (1, 2, 9)),
    metrics=(ACCURACY,),
)
TEXTS = (NASTY, "", "\x00", "\u202e\u2066", "a" * 5000, "<img src=x onerror=alert(1)>", "{seed}")
NUMBERS = (0, -1, 1, 2**63, 10**400, 1e308, -1e308, 5e-324, True)
RAW = ("NaN", "Infinity", "-Infinity", "1e999")
OTHERS = (None, [], {}, [[]], {"value": 1, "hex": "0x1p0"}, [NASTY], {NASTY: NASTY})


def places(value, path=()) -> Iterator[tuple]:
    """Yield the path of everything in a document."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


PLACES = tuple(places(HONEST))


def at(document, path):
    """Return what holds the value at a path."""
    for key in path[:-1]:
        document = document[key]
    return document


def survives(document) -> None:
    """Read a record as `compare`, `reproduce` and `inspect` do, and look at all that is shown."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    try:
        author = statement.parse(raw, "theirs.json")
    except RecordError as error:
        assert 0 < len(error.message) < 5000
        assert clean(error.message, keep="\n").replace("\n", "").isprintable()
        return
    for one, other in ((author, FAR_OFF), (FAR_OFF, author)):
        verdict = compare(one, other)
        assert verdict.exit_code != 0, verdict
        for line in told(verdict, one, other):
            assert clean(line).isprintable()
        json.dumps(as_document(verdict, one, other), allow_nan=False)
    list(expectation(author, Facts()))
    canonical.encode(list(provenance.described(author, {}, None)))
    assert not any("\0" in word for word in author.command)  # no program starts with one
    artifact = Digest.of(raw)
    record = ListedRecord(artifact=artifact, published=Published(record=author, raw=raw))
    shown = render.listed(Listing(records=(record,)))
    assert shown.replace("\n", "").isprintable()
    assert len(shown) < 5000


@pytest.mark.parametrize("values", [TEXTS, NUMBERS, OTHERS], ids=["texts", "numbers", "others"])
def test_anything_anywhere(values):
    """Every value of a record, replaced by each of many others."""
    survives(HONEST)
    for path in PLACES:
        for value in values:
            document = deepcopy(HONEST)
            at(document, path)[path[-1]] = value
            survives(document)


def test_numbers_that_json_has_no_words_for():
    """Every number of a record, replaced by what some parsers take for one."""
    for path in PLACES:
        document = deepcopy(HONEST)
        holder = at(document, path)
        if not isinstance(holder[path[-1]], int | float):
            continue
        holder[path[-1]] = "\ue000"
        text = json.dumps(document, ensure_ascii=False)
        for number in RAW:
            raw = text.replace('"\ue000"', number).encode()
            with pytest.raises(RecordError):
                statement.parse(raw, "theirs.json")
            survives(raw)


def test_nothing_where_something_was():
    """Every field, and every entry of a list, taken away; every entry there twice."""
    for path in PLACES:
        document = deepcopy(HONEST)
        del at(document, path)[path[-1]]
        survives(document)
        document = deepcopy(HONEST)
        holder = at(document, path)
        if isinstance(holder, list):
            holder.append(holder[path[-1]])
            survives(document)


def test_any_name_of_a_field():
    """Names of metrics, files, packages and variables are strangers', too."""
    for path in PLACES:
        if isinstance(path[-1], str):
            for name in TEXTS:
                document = deepcopy(HONEST)
                holder = at(document, path)
                holder[name] = holder.pop(path[-1])
                survives(document)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_several_things_at_once(data):
    """What one check lets pass, the next one meets."""
    document = deepcopy(HONEST)
    anything = st.one_of(
        st.text(max_size=30),
        st.floats(allow_nan=False, allow_infinity=False),
        st.integers(),
        st.sampled_from([*TEXTS, *NUMBERS, *OTHERS]),
    )
    for _ in range(data.draw(st.integers(2, 6))):
        path = data.draw(st.sampled_from(tuple(places(document))))
        at(document, path)[path[-1]] = data.draw(anything)
    survives(document)


@pytest.mark.parametrize("value", [1e150, 1e200, 1.7e308])
def test_huge_numbers_that_agree_with_themselves(value):
    """Runs and claims of one mind, and still no numbers that a verdict could follow from."""
    for sign in (1, -1):
        author = deepcopy(HONEST)
        for run_of in author["predicate"]["runs"]:
            run_of["metrics"]["test_accuracy"] = {"value": sign * value, "hex": value.hex()}
            if sign < 0:
                run_of["metrics"]["test_accuracy"]["hex"] = (-value).hex()
        claim = author["predicate"]["claims"][0]
        claim["mean"] = author["predicate"]["runs"][0]["metrics"]["test_accuracy"]
        claim["spread"] = claim["tolerance"] = {"value": 0.0, "hex": "0x0p0"}
        with pytest.raises(RecordError, match="as good as infinite"):
            statement.parse(json.dumps(author).encode(), "theirs.json")
    nearly = accuracies(9e149, -9e149)
    for one, other in (
        (nearly, accuracies(1.0, 2.0, first=9)),
        (nearly, accuracies(-9e149, 9e149)),
    ):
        verdict = compare(statement.parse(statement.encode(one), "it"), other)
        json.dumps(as_document(verdict, one, other), allow_nan=False)


def test_the_command_tells_it_in_one_error(tmp_path):
    """`compare` ends with 4, and writes nothing that a terminal obeys."""
    mine = tmp_path / "mine"
    mine.write_bytes(statement.encode(FAR_OFF))
    for place, (path, value) in enumerate(
        [
            (("predicateType",), "urn:torchship:run-record:v99" + NASTY),
            (("_type",), NASTY),
            (("subject", 0, "digest", "sha256"), "0" * 64),
            (("predicate", "runs", 0, "metrics"), {NASTY: {"value": 1.0, "hex": "0x1p0"}}),
            (("predicate", "claims"), HONEST["predicate"]["claims"] * 5000),
            (("predicate", "engine"), {NASTY: 1}),
        ]
    ):
        document = deepcopy(HONEST)
        at(document, path)[path[-1]] = value
        theirs = tmp_path / f"theirs-{place}"
        theirs.write_text(json.dumps(document))
        for pair in ((theirs, mine), (mine, theirs)):
            shown = CliRunner().invoke(torchship, ["compare", *map(str, pair)])
            assert isinstance(shown.exception, SystemExit), shown.output
            assert shown.exit_code == 4
            assert shown.output.count("torchship: ") == 1
