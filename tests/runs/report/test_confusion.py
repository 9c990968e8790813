"""What a classifier mistook for what: the file, and what a page makes of it."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from tests.runs.records import record, run
from tests.runs.report.test_page import HOSTILE, Reader, described, published

from torchship.cli import torchship
from torchship.digest import Digest
from torchship.errors import MetricsError
from torchship.runs.confusion import FILE, LARGEST, Confusion, Found, find, read
from torchship.runs.outputs import outputs
from torchship.runs.record import Record
from torchship.runs.report.matrix import laid_out
from torchship.runs.report.page import render
from torchship.runs.report.picture import png
from torchship.runs.statement import encode

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "docs" / "confusion.schema.json"


def misread(label: int = 0, predicted: int = 1, **changes: object) -> dict[str, object]:
    """Return a misread example of two by three pixels."""
    pixels = base64.b64encode(bytes(range(0, 252, 42))).decode()
    found = {"index": 7, "label": label, "predicted": predicted, "confidence": 0.75}
    return {**found, "width": 2, "height": 3, "pixels": pixels, **changes}


def written(**changes: object) -> dict[str, object]:
    """Return a confusion of three labels: 17 of 20 were classified right."""
    found = {
        "labels": ["cat", "dog", "cow"],
        "matrix": [[6, 2, 0], [1, 7, 0], [0, 0, 4]],
        "misread": [misread(0, 1), misread(1, 0, index=9, confidence=1)],
    }
    return {**found, **changes}


def left(folder: Path, *documents: object) -> Record:
    """Return a record of runs that left these, the first with seed 1, in its folder."""
    runs = []
    for seed, document in enumerate(documents, start=1):
        output = folder / f"seed-{seed}" / "output"
        output.mkdir(parents=True)
        text = document if isinstance(document, str) else json.dumps(document)
        (output / FILE).write_text(text)
        runs.append(replace(run(seed, test_accuracy=0.85), outputs=outputs(output)))
    return record(*runs)


def page(folder: Path, made: Record, here: Record | None = None) -> str:
    """Return the report of a record with what its runs left."""
    found = find(folder, here or made)
    second = published(here) if here else None
    return render(published(made), second, confusion=found, image=described())


# -- the file


def test_the_schema_is_that_of_the_types():
    """docs/confusion.schema.json is what scripts/confusion_schema.py makes of them."""
    spec = importlib.util.spec_from_file_location("s", ROOT / "scripts" / "confusion_schema.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert SCHEMA.read_text() == script.text(), "run python scripts/confusion_schema.py"


def test_what_is_read_is_valid(tmp_path):
    """A file that is read passes the schema, and the schema can say no."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    validator.validate(written())
    assert find(tmp_path, left(tmp_path, written())).faults == ()
    assert not validator.is_valid(written(misread=[misread(width=129)]))
    assert not validator.is_valid(written(matrix=[[1, -1]]))


FAULTY = {
    "nothing": "",
    "half": json.dumps(written())[:-9],
    "a list": [],
    "no labels": written(labels=[]),
    "one label": written(labels=["cat"], matrix=[[1]], misread=[]),
    "many labels": written(labels=[str(n) for n in range(101)]),
    "a label twice": written(labels=["cat", "cat", "cow"]),
    "an empty label": written(labels=["", "dog", "cow"]),
    "a long label": written(labels=["c" * 101, "dog", "cow"]),
    "a number for a label": written(labels=[1, 2, 3]),
    "few rows": written(matrix=[[1, 0, 0], [0, 1, 0]]),
    "a short row": written(matrix=[[1, 0, 0], [0, 1], [0, 0, 1]]),
    "a negative count": written(matrix=[[1, 0, 0], [0, -1, 0], [0, 0, 1]]),
    "a fraction": written(matrix=[[1, 0, 0], [0, 0.5, 0], [0, 0, 1]]),
    "a huge count": written(matrix=[[1, 0, 0], [0, 10**16, 0], [0, 0, 1]]),
    "a number of a thousand digits": json.dumps(written()).replace("[[6,", f"[[{'9' * 1000},"),
    "a place that is no label": written(misread=[misread(0, 3)]),
    "a negative place": written(misread=[misread(-1, 0)]),
    "not misread": written(misread=[misread(1, 1)]),
    "many misread": written(misread=[misread()] * 101),
    "confidence beyond one": written(misread=[misread(confidence=1.01)]),
    "confidence that is no number": json.dumps(written()).replace("0.75", "NaN"),
    "no width": written(misread=[misread(width=0)]),
    "a wide picture": written(misread=[misread(width=129, pixels="AAAA" * 43)]),
    "pixels that are not those of the size": written(misread=[misread(width=3)]),
    "no base64": written(misread=[misread(pixels="<svg/>")]),
    "deep": '{"labels": ["a", "b"], "more": ' + "[" * 100_000,
    "large": " " * LARGEST + json.dumps(written()),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_faulty_file_is_one_line(tmp_path, case):
    """It says which file and what is wrong with it; the page shows that, and no table."""
    made = left(tmp_path, FAULTY[case])
    found = find(tmp_path, made)
    assert found.confusion is None
    (fault,) = found.faults
    assert fault.startswith(f"seed-1/output/{FILE} is ")
    assert "\n" not in fault
    source = page(tmp_path, made)
    assert "Not shown: seed-1/output/confusion.json is" in Reader(source).text
    assert not {"img"} & set(Reader(source).tags)
    assert "img-src" not in source
    assert 'class="matrix' not in source


def test_only_what_was_recorded_is_shown(tmp_path):
    """A file that has changed since is refused, and one that no record names is not looked at."""
    made = left(tmp_path, written())
    file = tmp_path / "seed-1" / "output" / FILE
    file.write_text(json.dumps(written(labels=["ox", "dog", "cow"])))
    assert find(tmp_path, made).faults == (
        "seed-1/output/confusion.json has changed since it was recorded",
    )
    assert find(tmp_path, record(run(1))) is None
    file.unlink()
    assert find(tmp_path, made) is None


def test_a_link_is_not_followed(tmp_path):
    """What a program left in place of the file may point anywhere."""
    made = left(tmp_path, written())
    file = tmp_path / "seed-1" / "output" / FILE
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert find(tmp_path, made) is None


def test_a_folder_in_its_place_is_said(tmp_path):
    """A name that cannot be taken for a file is a fault, and no traceback."""
    (tmp_path / FILE).mkdir()
    with pytest.raises(MetricsError, match="cannot be read"):
        read(tmp_path / FILE, Digest.of(b""), FILE)


# -- the page


def test_the_table_says_what_was_taken_for_what(tmp_path):
    """Every count is there, with how much of each label was right, and the frequent mistakes."""
    source = page(tmp_path, left(tmp_path, written()))
    read = Reader(source)
    assert "17 of 20 examples were classified right, and 3 were not." in read.text
    table = re.search(r'<table class="matrix">.*?</table>', source, re.S)[0]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*)</tr>', table)
    cells = [(label, *re.findall(r"<td[^>]*>(.*?)</td>", row)) for label, row in rows]
    assert cells == [
        ("cat", "6", "2", "", "75.0%"),
        ("dog", "1", "7", "", "87.5%"),
        ("cow", "", "", "4", "100%"),
    ]
    assert "cat taken for dog, 2 times; dog taken for cat, 1 time." in read.text
    assert "This is the run with seed 1." in read.text
    assert 'class="e5">2<' in source
    assert 'class="e4">1<' in source


def test_a_misread_example_is_a_picture(tmp_path):
    """Its pixels stand in the page itself as a PNG, and the policy allows that and no more."""
    source = page(tmp_path, left(tmp_path, written()))
    found = Reader(source)
    addresses = [value for tag, name, value in found.attributes if (tag, name) == ("img", "src")]
    assert len(addresses) == 2
    raw = base64.b64decode(addresses[0].removeprefix("data:image/png;base64,"))
    width, height, depth, colour = struct.unpack(">IIBB", raw[16:26])
    assert (width, height, depth, colour) == (2, 3, 8, 0)
    assert zlib.decompress(raw[raw.index(b"IDAT") + 4 : -16]) == bytes(
        (0, 0, 42, 0, 84, 126, 0, 168, 210)
    )
    policy = next(value for _, name, value in found.attributes if name == "content")
    assert "; img-src data:; " in policy
    assert "cat taken for dog 75.0%" in found.text
    assert "dog taken for cat 100%" in found.text
    assert ("img", "alt", "Example 7") in found.attributes
    assert not re.search(r"https?:|url\(|@import", source)


def test_a_picture_has_the_same_bytes_everywhere():
    """These are the bytes of this picture, whoever writes it."""
    made = Digest.of(png(28, 28, bytes(n * 7 % 256 for n in range(784))))
    assert made.short == "772d7afa5bce"


def test_of_several_runs_it_is_said_which_is_shown(tmp_path):
    """The first that left a good one, and what is wrong with those before it."""
    made = left(tmp_path, "{}", written(), written())
    text = Reader(page(tmp_path, made)).text
    assert "This is the run with seed 2, the first of 3 that left such a table." in text
    assert "Not shown: seed-1/output/confusion.json is not a confusion: " in text


def test_a_verdict_shows_the_run_that_was_made_here(tmp_path):
    """The author's outputs are not here; the reproducer's are."""
    here = left(tmp_path, written())
    text = Reader(page(tmp_path, record(run(1, test_accuracy=0.85)), here)).text
    assert "This is the run with seed 1 here." in text


def test_the_directory_of_a_single_run(tmp_path):
    """`run` leaves its output in the run directory itself."""
    made = left(tmp_path, written())
    (tmp_path / "seed-1" / "output").rename(tmp_path / "output")
    assert find(tmp_path, made).confusion.labels == ("cat", "dog", "cow")


def test_many_labels_are_a_picture_of_cells(tmp_path):
    """A hundred labels have no room for numbers: cells are shaded, and the worst are listed."""
    labels = [f"label {n}" for n in range(100)]
    matrix = [[90 if a == b else (a * b) % 7 for a in range(100)] for b in range(100)]
    source = page(tmp_path, left(tmp_path, {"labels": labels, "matrix": matrix}))
    assert 'class="matrix' not in source
    assert source.count('class="right" x=') == 100
    assert "label 1 taken for label 6, 6 times" in Reader(source).text
    assert len(source) < 1_000_000


def test_nothing_was_counted(tmp_path):
    """A matrix of zeros, and a label without examples, are drawn like any other."""
    zeros = written(matrix=[[0] * 3] * 3, misread=[])
    assert (
        "0 of 0 examples were classified right."
        in Reader(page(tmp_path, left(tmp_path, zeros))).text
    )


def test_labels_are_a_strangers_text(tmp_path):
    """Tags, templates, controls and marks of direction in a label change no element."""
    hostile = [HOSTILE[:90] + str(n) for n in range(3)]
    honest = page(tmp_path / "honest", left(tmp_path / "honest", written()))
    evil = page(tmp_path / "evil", left(tmp_path / "evil", written(labels=hostile)))
    assert Reader(honest).tags == Reader(evil).tags
    assert {name for _, name, _ in Reader(honest).attributes} == {
        name for _, name, _ in Reader(evil).attributes
    }


def test_the_most_that_a_file_may_hold_is_a_page_that_opens(tmp_path):
    """A hundred pictures of the largest size, of noise: a few megabytes."""
    noise = bytes((n * n * 31 + n * 17 >> 3) % 256 for n in range(128 * 128))
    pixels = base64.b64encode(noise).decode()
    most = [misread(width=128, height=128, pixels=pixels)] * 100
    source = page(tmp_path, left(tmp_path, written(misread=most)))
    assert source.count("<img") == 100
    assert len(source) < 4_000_000


def test_levels_of_a_matrix():
    """The most frequent mistake is shaded the most, and the rarest is still seen."""
    found = Confusion(labels=("a", "b"), matrix=((5, 10000), (1, 5)))
    cells = [cell.level for row in laid_out(found).rows for cell in row.cells]
    assert cells == [0, 5, 1, 0]
    assert Found(count=1).confusion is None


def test_report_tells_what_it_does_not_show(tmp_path, monkeypatch):
    """`torchship report` draws its page, and names a faulty file in one line on stderr."""
    monkeypatch.setenv("TORCHSHIP_HOME", str(tmp_path / "store"))
    made = left(tmp_path, written(labels=["\x1b[31m", "b", "b"]), written())
    (tmp_path / "record.json").write_bytes(encode(made))
    done = CliRunner().invoke(torchship, ["report", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.strip() == str(tmp_path / "report.html")
    assert done.stderr == (
        "the report does not show seed-1/output/confusion.json is not a confusion: "
        "a label stands twice in `labels`\n"
    )
    assert "the run with seed 2" in (tmp_path / "report.html").read_text("utf-8")
