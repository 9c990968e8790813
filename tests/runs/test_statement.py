"""Records as bytes, and what is refused of a stranger's."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, is_dataclass, replace

import pytest
from tests.runs.records import accuracies, record, run, whole

from torchship.digest import Digest
from torchship.errors import RecordError
from torchship.runs import statement, typed
from torchship.runs.record import Determinism, Repeat


def changed(change) -> bytes:
    """Return a whole record's statement with something changed in it."""
    document = json.loads(statement.encode(whole()))
    change(document)
    return json.dumps(document).encode()


def refused(raw: bytes) -> str:
    """Return what is said of a record that is refused."""
    with pytest.raises(RecordError) as caught:
        statement.parse(raw, "theirs.json")
    return caught.value.message


def test_a_record_is_an_in_toto_statement_about_the_image():
    """Subject and predicate type are those of the specification."""
    found = whole()
    document = json.loads(statement.encode(found))
    assert document["_type"] == "https://in-toto.io/Statement/v1"
    assert document["predicateType"] == "urn:torchship:run-record:v1"
    assert document["subject"] == [
        {"name": "mnist", "digest": {"sha256": found.image.manifest.hex}},
        {"name": "mnist", "digest": {"sha256": found.image.index.hex}},
    ]


def test_what_is_written_is_read_back():
    """Nothing of a record is lost, and every field of the types is in the record of the test."""
    found = whole()
    assert statement.parse(statement.encode(found), "it") == found
    assert statement.encode(statement.parse(statement.encode(found), "it")) == statement.encode(
        found
    )

    def filled(value) -> None:
        for each in fields(value):
            assert getattr(value, each.name) is not None, each.name
            if is_dataclass(inner := getattr(value, each.name)):
                filled(inner)

    filled(found)


def test_a_record_of_little_is_read_back():
    """What nobody looked at is None, and stays so."""
    found = record(run(None), claims=(), seed=None)
    assert statement.parse(statement.encode(found), "it") == found


def test_a_metric_keeps_every_bit():
    """The hexadecimal form reads back as the same float."""
    document = json.loads(statement.encode(accuracies(0.1)))
    metric = document["predicate"]["runs"][0]["metrics"]["test_accuracy"]
    assert float.fromhex(metric["hex"]) == metric["value"] == 0.1


def test_a_field_of_the_future_is_left_alone():
    """in-toto: consumers ignore what they do not know."""

    def add(document):
        document["predicate"]["runs"][0]["energy"] = 3

    assert statement.parse(changed(add), "it") == whole()


def put(*path_and_value):
    """Return a change that puts a value at a path of the predicate."""
    *path, value = path_and_value

    def change(document):
        place = document["predicate"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def drop(*path):
    """Return a change that takes a field of the predicate away."""

    def change(document):
        place = document["predicate"]
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


METRIC = ("runs", 1, "metrics", "test_accuracy")
FAULTS = {
    "another subject": (
        lambda document: document["subject"][0]["digest"].update(sha256="0" * 64),
        "subject is another image than predicate.image names",
    ),
    "one subject more": (
        lambda document: document["subject"].append({"digest": {"sha256": "0" * 64}}),
        "subject is another image",
    ),
    "no subject": (lambda document: document.pop("subject"), "subject is not a list"),
    "subject of text": (lambda document: document.update(subject="x"), "subject is not a list"),
    "a later version": (
        lambda document: document.update(predicateType="urn:torchship:run-record:v2"),
        "no run record of version 1: its predicateType is 'urn:torchship:run-record:v2'",
    ),
    "another statement": (
        lambda document: document.update(_type="https://in-toto.io/Statement/v2"),
        "not an in-toto statement of version 1",
    ),
    "no predicate": (lambda document: document.pop("predicate"), "predicate is not an object"),
    "no runs": (put("runs", []), "predicate.runs is empty"),
    "runs of text": (put("runs", "many"), "predicate.runs is not a list"),
    "missing field": (drop("runs", 1, "seconds"), "predicate.runs[1].seconds is missing"),
    "wrong type": (put("runs", 1, "status", "0"), "predicate.runs[1].status is not a whole number"),
    "true for one": (put("runs", 1, "status", True), "predicate.runs[1].status"),
    "hex says another number": (
        put(*METRIC, "hex", "0x1p-1"),
        "predicate.runs[1].metrics.test_accuracy.hex is not the same number",
    ),
    "hex of text": (put(*METRIC, "hex", "<script>"), "hex is not the same number"),
    "bare number": (put(*METRIC, 0.99), "test_accuracy is not an object with `value` and `hex`"),
    "huge number": (put(*METRIC, "value", 10**300), "test_accuracy.value is not a finite number"),
    "a name that a terminal obeys": (
        put("runs", 0, "metrics", "\x1b[2J", {"value": 1.0, "hex": "0x1p0"}),
        r"has the name '\x1b[2J'",
    ),
    "digest of another form": (
        put("runs", 0, "outputs", "model.bin", "md5:0"),
        "predicate.runs[0].outputs.model.bin is not a digest",
    ),
    "seed twice": (put("runs", 1, "seed", 1), "predicate.runs[1].seed is 1, as that of another"),
    "a claim too good": (
        put("claims", 0, "mean", {"value": 1.0, "hex": "0x1p0"}),
        "predicate.claims[0].mean is 1.0, and the runs give 0.99",
    ),
    "a claim of more runs": (put("claims", 0, "n", 50), "predicate.claims[0].n is 50, and 3 runs"),
    "a spread made up": (
        put("claims", 0, "spread", {"value": 1.0, "hex": "0x1p0"}),
        "predicate.claims[0].spread is 1.0",
    ),
    "a tolerance made up": (
        put("claims", 0, "tolerance", {"value": 1.0, "hex": "0x1p0"}),
        "predicate.claims[0].tolerance is 1.0, and from the runs follows 0.005",
    ),
    "a negative tolerance": (
        put("claims", 1, "tolerance", {"value": -1.0, "hex": "-0x1p0"}),
        "predicate.claims[1].tolerance is negative",
    ),
    "a claim of nothing": (
        put("claims", 0, "name", "f1"),
        "claims 'f1', which not every run gave",
    ),
    "better than both": (put("claims", 0, "better", "both"), "not one of higher, lower"),
    "10,000 claims": (
        lambda document: document["predicate"].update(
            claims=document["predicate"]["claims"][:1] * 10_000
        ),
        "predicate.claims has 10000 entries, more than 1000",
    ),
    "a time of the future's form": (
        put("recorded", "tomorrow"),
        "predicate.recorded is not a time",
    ),
    "a run that never ended": (
        put("runs", 0, "seconds", 1e300),
        "predicate.runs[0].seconds is 1e+300: no date can tell when it ended",
    ),
    "a run at the end of time": (
        put("runs", 0, "started", "9999-12-31T23:59:59Z"),
        "predicate.runs[0].seconds is 1.5: no date can tell",
    ),
    "a seed that is no part of a command": (
        put("seed", '--seed "{seed}'),
        "predicate.seed is '--seed \"{seed}', which gives no program a seed",
    ),
    "a command with a zero byte": (
        put("command", ["python", "main.py\0"]),
        "predicate.command has a zero byte in a word",
    ),
    "a variable with a zero byte": (
        put("determinism", "environment", "OMP_NUM_THREADS", "2\0"),
        "predicate.determinism.environment has a zero byte in a string",
    ),
    "a string without end": (put("engine", "x" * 100_000), "predicate.engine is not a string"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_record_is_refused_with_the_path_to_the_fault(fault):
    """Nothing in a stranger's record is believed before it was checked."""
    change, words = FAULTS[fault]
    said = refused(changed(change))
    assert words in said
    assert said.startswith("theirs.json")
    assert said.isprintable() or "\n" in said
    assert len(said) < 4000


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_no_number_is_taken_that_json_has_no_words_for(number):
    """NaN compares with nothing, and could pass for anything."""
    raw = statement.encode(accuracies(0.5)).replace(b'"value":0.5', b'"value":' + number.encode())
    assert number.encode() in raw
    refused(raw)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'"x"'])
def test_what_is_no_json_object_is_refused(raw):
    """Whatever a file holds, one sentence is the answer."""
    refused(raw)


def test_a_record_larger_than_any_is_not_read():
    """Nobody fills our memory with one."""
    assert "more than a record can" in refused(b" " * (statement.LARGEST + 1))


def test_all_faults_are_told_at_once():
    """One look shows what has to be mended."""

    def spoil(document):
        document["predicate"]["engine"] = 3
        del document["predicate"]["recorded"]

    said = refused(changed(spoil))
    assert "predicate.engine" in said
    assert "predicate.recorded is missing" in said


def test_text_that_a_terminal_obeys_is_kept_as_text():
    """A command may hold anything: whoever shows it escapes it."""
    nasty = "<script>alert(1)</script>\x1b]0;x\x07"
    found = replace(whole(), command=("python", nasty), parameters={nasty: nasty})
    assert statement.parse(statement.encode(found), "it") == found


def test_a_name_that_is_not_utf8_stands_in_the_record_all_the_same():
    """JSON has no words for its bytes: they are spelled out."""
    found = statement.parse(statement.encode(record(run(1), command=("\udcff",))), "it")
    assert found.command == ("\\udcff",)


def bare(value):
    """Return the same with every optional field left out, all the way down."""
    changes = {}
    for each in fields(value):
        if each.default is not MISSING:
            changes[each.name] = each.default
        elif each.default_factory is not MISSING:
            changes[each.name] = each.default_factory()
        elif is_dataclass(inner := getattr(value, each.name)) and not isinstance(inner, Digest):
            changes[each.name] = bare(inner)
    return replace(value, **changes)


def parts(value):
    """Yield a record's parts, itself the first."""
    if is_dataclass(value) and not isinstance(value, Digest):
        yield value
        for each in fields(value):
            yield from parts(getattr(value, each.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from parts(item)


@pytest.mark.parametrize("part", list(parts(whole())), ids=lambda part: type(part).__name__)
def test_what_may_be_none_may_be_left_out(part):
    """Each kind of part is read back with all that is optional absent, as it was written."""
    faults = typed.Faults()
    least = bare(part)
    assert typed.from_json(type(part), typed.to_json(least), "it", faults) == least
    assert faults.found == []
    for each in fields(part):
        if "None" in str(each.type):
            assert each.default is None, each.name


def test_a_record_without_seeds_is_read_back():
    """A program that is given no seed, run twice and once more."""
    found = record(
        run(None, test_accuracy=0.5),
        run(None, test_accuracy=0.5),
        seed=None,
        determinism=Determinism(repeat=Repeat(identical=True)),
    )
    assert statement.parse(statement.encode(found), "it") == found
