"""The report: one page, whatever is in the records."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import structs
from tests.runs.records import ACCURACY, IMAGE, NOW, accuracies, record, run, whole

from torchship.cli import torchship
from torchship.digest import Descriptor, Digest
from torchship.layers.layer import ORIGIN, Layer
from torchship.oci.describe import ImageDescription, LayerDescription
from torchship.oci.image import Image
from torchship.platform import Platform
from torchship.project.project import Metric
from torchship.runs.claims import observations
from torchship.runs.difference import first_difference
from torchship.runs.judgement import Level
from torchship.runs.publishing import Published, read
from torchship.runs.record import Curve, Hardware, Record, Run
from torchship.runs.report.claim_figure import claim_figure
from torchship.runs.report.contents import contents
from torchship.runs.report.page import render
from torchship.runs.report.panels import panels
from torchship.runs.statement import encode
from torchship.runs.verdict import compare

FIVE = (0.9915, 0.9917, 0.9921, 0.9908, 0.9912)
HOSTILE = (
    "</title></style><script>alert(1)</script><img src=http://x.example/ onerror=alert(1)>"
    "\"'><svg onload=alert(1)>{{ 7 * 7 }}{% raw %}&amp;\x1b[31m\x00\u202eevil\u2066\r\n\ud800"
    + "z\u0301" * 3
    + "\u0301" * 200
)


def page(author: Record, here: Record | None = None, **more) -> str:
    """Return the report of records as they come from a file."""
    return render(published(author), published(here) if here else None, **more)


def published(made: Record) -> Published:
    """Return a record with some bytes that name it: those that it would be written as."""
    return Published(record=made, raw=encode(made))


def curved(seed: int, values: list[float], **metrics: float) -> Run:
    """Return a run that logged a loss in steps of ten."""
    steps = tuple({"step": 10.0 * (n + 1), "loss": value} for n, value in enumerate(values))
    return replace(
        run(seed, **metrics), curve=Curve(source="metrics.jsonl", count=len(steps), steps=steps)
    )


class Reader(HTMLParser):
    """What is in a page: its tags, their attributes, its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        """Count a tag, and keep its attributes."""
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data):
        """Keep what is said."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """All text, its blanks evened out."""
        return " ".join("".join(self.words).split())


def hostile(value: object, kinds: type = str) -> object:
    """Return a record's value with every string of it, also every name, a hostile one."""
    if isinstance(value, str) and type(value) is str:
        return value + HOSTILE
    if isinstance(value, tuple):
        return tuple(hostile(item) for item in value)
    if hasattr(value, "items"):
        return {hostile(key): hostile(item) for key, item in value.items()}
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, Digest):
        kept = {"better", "profile", "tolerance_from"}
        return replace(
            value,
            **{
                name: hostile(getattr(value, name))
                for name in value.__dataclass_fields__
                if name not in kept
            },
        )
    return value


def described() -> ImageDescription:
    """Return an image of a base, a wheel, bytecode, data, and code."""
    origins = {
        "debian:bookworm, 64 packages": "debian:bookworm",
        "torch 2.13.0+cpu": "wheel:torch-2.13.0+cpu-cp311.whl@sha256:00",
        "bytecode of torch 2.13.0+cpu": "python:3.11.2",
        "data /data/x": "data:x",
        "source, 3 files": "",
    }
    sizes = (26_100_000, 152_000_000, 5_900_000, 9_900_000, 6_100)
    layers = tuple(
        Layer(
            digest=Digest.of(title.encode()),
            size=size,
            diff_id=Digest.of(title.encode()),
            unpacked_size=size,
            annotations={ORIGIN: origin},
        )
        for (title, origin), size in zip(origins.items(), sizes, strict=True)
    )
    empty = Descriptor(media_type="x/y", digest=Digest.of(b""), size=0)
    image = Image(platform=Platform.parse("linux/amd64"), descriptor=empty, config=empty,
                  layers=layers)  # fmt: skip
    return ImageDescription(
        image=image,
        size=sum(sizes),
        layers=tuple(
            LayerDescription(layer=layer, share=0.1, title=title, origin=layer.annotations)
            for layer, title in zip(layers, origins, strict=True)
        ),
    )


CASES = {
    "record": (accuracies(*FIVE), None),
    "one run": (accuracies(0.99), None),
    "everything": (whole(), None),
    "failed": (record(run(1, status=3)), None),
    "bit-identical": (accuracies(*FIVE), accuracies(FIVE[0])),
    "within": (accuracies(*FIVE), accuracies(0.9914, first=9)),
    "not reproduced": (accuracies(*FIVE), accuracies(0.95, 0.951, first=9)),
    "better": (accuracies(*FIVE), accuracies(0.999, 0.9991, first=9)),
    "inconclusive": (accuracies(0.9917), accuracies(0.9914, first=9)),
    "could not run": (accuracies(*FIVE), record(run(1, status=1))),
    "other command": (accuracies(*FIVE), accuracies(*FIVE, command=("python", "other.py"))),
    "whole": (whole(), replace(whole(), hardware=None, software=None)),
}


# -- what a page is


@pytest.mark.parametrize("case", CASES)
def test_a_page_is_one_file_that_asks_for_nothing(case):
    """There is no script, no address, and a policy that allows only the page's own style."""
    source = page(*CASES[case], image=described())
    read = Reader(source)
    assert not read.tags.keys() & {
        "script", "link", "img", "iframe", "object", "embed", "form", "base", "a", "video", "use",
    }  # fmt: skip
    names = {name for _, name, _ in read.attributes}
    assert not [name for name in names if name.startswith("on")]
    assert not names & {"src", "href", "style", "action", "background", "srcset", "data"}
    assert not re.search(r"https?:|url\(|@import|//\w", source)
    style = re.search(r"<style>(.*?)</style>", source, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(value for _, name, value in read.attributes if name == "content")
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


@pytest.mark.parametrize("case", CASES)
def test_a_page_is_well_formed(case):
    """Every element is closed where it was opened, and no identifier is used twice."""
    source = page(*CASES[case], image=described())
    empty = {"meta"}
    opened = []
    for closing, tag, closed in re.findall(r"<(/?)([a-z][a-zA-Z0-9]*)[^>]*?(/?)>", source):
        if closing:
            assert opened.pop() == tag
        elif not closed and tag not in empty:
            opened.append(tag)
    assert opened == []
    ids = [value for _, name, value in Reader(source).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    labels = [value for _, name, value in Reader(source).attributes if name == "aria-labelledby"]
    assert set(" ".join(labels).split()) == set(ids)


def test_the_same_records_give_the_same_bytes():
    """Another process with other hashes of strings writes the very same page."""
    code = (
        "import sys; from tests.runs.report import test_page as t; "
        "sys.stdout.buffer.write(t.page(t.hostile(t.whole()), t.whole()).encode())"
    )
    pages = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            check=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Seoul"))
    }
    assert len(pages) == 1


# -- what it says


@pytest.mark.parametrize(
    ("case", "word"),
    [
        ("record", "5 RUNS"),
        ("one run", "1 RUN"),
        ("failed", "FAILED"),
        ("bit-identical", "BIT-IDENTICAL"),
        ("within", "WITHIN TOLERANCE"),
        ("not reproduced", "NOT REPRODUCED"),
        ("better", "NOT REPRODUCED (better)"),
        ("inconclusive", "INCONCLUSIVE"),
        ("could not run", "COULD NOT RUN"),
        ("other command", "INCONCLUSIVE"),
    ],
)
def test_the_banner_says_the_verdict(case, word):
    """The first words are the verdict's own; of a single record, what it holds."""
    source = page(*CASES[case])
    assert re.search(r'<p class="word">(.*?)</p>', source)[1] == word


def test_the_same_bits_are_shown_by_their_seeds():
    """One run of five is not set beside the mean of the five."""
    found = page(accuracies(*FIVE), accuracies(FIVE[0]))
    assert "<dt>seed 1</dt><dd>0.9915<small>there and here, the same bits</small></dd>" in found
    assert "mean here" not in found
    assert "<dt>difference</dt>" not in found


def test_every_reason_and_limit_is_said():
    """A page says what its verdict rests on, and what it does not show."""
    author, here = CASES["not reproduced"]
    text = Reader(page(author, here)).text
    for reason in compare(author, here).reasons:
        assert reason in text
    assert "It does not show that the method" in text


def test_the_formula_stands_with_its_numbers():
    """Tolerance, difference, standard error and the test itself can be followed by hand."""
    text = Reader(page(*CASES["within"])).text
    assert "= 2 t.95, 4 s √(1 + 1/n) = 2 × 2.1318 × 0.00049295 × √(1 + 1/5) = 0.00230239" in text
    assert "= x̄here − x̄author = 0.9914 − 0.99146 = −6×10⁻⁵" in text
    assert "≤ 0.00230239 = δ" in text
    assert "so WITHIN TOLERANCE" in text


def test_the_published_case_is_no_pass():
    """9917 and 9914 of 10000, one run each: the binomial bound, and a level that stays open."""
    metric = structs.replace(ACCURACY, examples=10000)
    author, here = accuracies(0.9917, metric=metric), accuracies(0.9914, first=9, metric=metric)
    source = page(author, here)
    text = Reader(source).text
    assert '<section class="banner open">' in source
    assert "1.96 √2 √(p(1 − p)/N) = 0.00253" in text
    assert "consistent if errors are independent" in text
    assert "WITHIN TOLERANCE" not in text
    (judgement,) = compare(author, here).claims
    figure = claim_figure(author.claims[0], author.runs, here.runs, judgement)
    assert figure.band is None
    assert figure.chance.start < figure.here.mean < figure.author.mean < figure.chance.end


def test_the_first_difference_is_said_and_drawn():
    """Where two curves part stands in words, as a line in each panel, and as a curve of gaps."""
    author = record(curved(1, [1.0, 0.5, 0.25, 0.2], test_accuracy=0.9),
                    curved(2, [1.1, 0.5, 0.25, 0.2], test_accuracy=0.91))  # fmt: skip
    here = record(curved(1, [1.0, 0.5, 0.26, 0.1], test_accuracy=0.905))
    source = page(author, here)
    assert "step 30, loss: 0.25 and 0.26" in Reader(source).text
    assert source.count(">first difference</text>") == 2  # of the loss, and of the gaps
    (panel,) = panels(author.runs, here.runs, first_difference(author, here))
    assert panel.marker.at == pytest.approx(66.67)
    assert [(line.side, line.strong) for line in panel.lines] == [
        ("author", False), ("author", True), ("here", True),
    ]  # fmt: skip


def test_changed_facts_come_first():
    """What differs between the environments stands above what does not."""
    author = replace(whole(), hardware=Hardware(machine="x86_64", cpu="Intel", processors=2))
    here = replace(whole(), hardware=Hardware(machine="x86_64", cpu="AMD EPYC", processors=2))
    rows = re.findall(r'<tr class="(\w+)"><th scope="row">(.*?)</th>', page(author, here))
    assert rows[0] == ("changed", "CPU")
    kinds = [kind for kind, _ in rows]
    assert kinds == sorted(kinds)
    assert "CPU features on one side only" not in page(author)


def test_commands_can_be_copied():
    """Words that a shell would take apart are quoted; the image is named by its digest."""
    assert "python main.py --seed 1" in Reader(page(accuracies(0.9))).text
    made = accuracies(0.9, command=("python", "main.py", "--name", "a b; rm -rf $HOME"))
    text = Reader(page(replace(made, image=replace(IMAGE, name="r.example:5000/me/mnist:v1")))).text
    assert "torchship reproduce r.example:5000/me/mnist:v1" in text
    assert (
        f"docker run --rm r.example:5000/me/mnist@{IMAGE.manifest} "
        "python main.py --name 'a b; rm -rf $HOME' --seed 1"
    ) in text


def test_no_command_is_offered_for_what_is_no_name():
    """A name that a shell or a program would take for an option is shown, and never to be typed."""
    for name in ("-v/:/host", "--privileged", "$(reboot)/x", "a b"):
        made = accuracies(0.9, image=replace(IMAGE, name=name))
        lines = re.findall(r"<pre>(.*?)</pre>", page(made))
        assert lines == ["python main.py --seed 1"]
    assert "torchship publish HOST/YOU/mnist:TAG" in Reader(page(accuracies(0.9))).text


def test_layers_by_size_and_origin():
    """The kinds of content fill the bar, and the largest layer is the first of the list."""
    found = contents(described())
    assert sum(kind.share for kind in found.kinds) == pytest.approx(100)
    assert [kind.kind for kind in found.kinds] == ["base", "wheel", "bytecode", "data", "source"]
    assert found.layers[0].title == "torch 2.13.0+cpu"
    text = Reader(page(accuracies(0.9), image=described())).text
    assert "194 MB in 5 layers" in text
    assert "wheel:torch-2.13.0+cpu-cp311.whl" in text
    assert "torchship inspect mnist shows its layers" in Reader(page(accuracies(0.9))).text


@pytest.mark.parametrize("m", [1, 3])
def test_the_bar_lies_in_the_band_exactly_where_the_claim_holds(m):
    """The picture is the test: an interval inside the band is 'within tolerance'."""
    author = accuracies(*FIVE)
    seen = set()
    for step in range(-40, 41):
        here = accuracies(*(0.9915 + step / 10000 + n / 5000 for n in range(m)), first=9)
        (judgement,) = compare(author, here).claims
        figure = claim_figure(author.claims[0], observations(author.runs), here.runs, judgement)
        inside = (
            figure.band.start <= figure.here.interval.start
            and figure.here.interval.end <= figure.band.end
        )
        assert inside == (judgement.level is Level.WITHIN_TOLERANCE)
        seen.add(inside)
    assert seen == {True, False}


# -- strangers


@pytest.mark.parametrize("case", ["everything", "within", "inconclusive", "whole"])
def test_hostile_text_is_text(case):
    """Tags, templates, controls and marks of direction in every string change no element."""
    honest = CASES[case]
    evil = tuple(hostile(each) if each else None for each in honest)
    one, other = Reader(page(*honest)), Reader(page(*evil))
    assert set(other.tags) - {"details", "summary", "span"} <= set(one.tags)
    assert other.tags["svg"] == one.tags["svg"]
    assert not [name for _, name, _ in other.attributes if name.startswith("on")]
    assert "alert(1)" in other.text
    assert "{{ 7 * 7 }}" in other.text
    source = page(*evil)
    assert {unicodedata.category(letter) for letter in source if letter != "\n"}.isdisjoint(
        {"Cc", "Cf", "Cs", "Zl", "Zp"}
    )
    assert "\u0301" * 4 not in source


def test_numbers_of_any_size_have_a_place():
    """The largest floats, denormals, and numbers that do not move: every place is a percentage."""
    extremes = [1.7e308, -1.7e308, 5e-324, 0.0, 1e149, 1.0]
    for values in (extremes, [1e149] * 3, [5e-324] * 2, [1e149, -1e149]):
        runs = [
            curved(seed, extremes, test_accuracy=value)
            for seed, value in enumerate(v for v in values if abs(v) <= 1e149)
        ]
        source = page(record(*runs), record(*runs[:1]))
        assert not re.search(r'="[^"]*(nan|inf)[^"]*"', source)
        for name, value in re.findall(r' (cx|x|x1|x2|width|y1|y2)="(-?[\d.]+)%"', source):
            assert 0 <= float(value) <= 100, name


def test_a_long_record_makes_a_page_that_opens():
    """A thousand runs of two thousand steps, eighty claims: a few megabytes, in seconds."""
    steps = tuple({"step": float(n), "a": 1 / (n + 1), "b": float(n % 7)} for n in range(2000))
    curve = Curve(source="stdout", count=2000, steps=steps)
    names = [f"metric_{n}" for n in range(80)]
    runs = [
        replace(run(seed, **dict.fromkeys(names, seed / 7)), curve=curve) for seed in range(1000)
    ]
    made = record(*runs, metrics=tuple(Metric(name=name, better="higher") for name in names))
    other = replace(made, runs=made.runs[::-1][:500])
    started = time.process_time()
    source = render(Published(record=made, raw=b"one"), Published(record=other, raw=b"other"))
    assert time.process_time() - started < 20
    assert len(source) < 3_000_000
    assert "and 56 more claims" in source


def test_thinned_curves_keep_their_peaks():
    """Of two thousand steps a few hundred are drawn, the highest and the lowest among them."""
    values = [1.0] * 2000
    values[777], values[1234] = 9.0, -5.0
    (panel,) = panels([curved(1, values)], [], None)
    heights = [int(point.split(",")[1]) for point in panel.lines[0].points.split()]
    assert len(heights) < 400
    assert max(heights) - min(heights) > 850


def test_a_counter_that_starts_again_is_not_an_axis():
    """Steps whose number falls back each epoch are drawn in the order in which they came."""
    steps = tuple({"batch": float(n % 4), "loss": 1.0 / (n + 1)} for n in range(12))
    curve = Curve(source="stdout", count=12, steps=steps)
    found = panels([replace(run(1), curve=curve)], [], None)
    assert [(panel.name, panel.across) for panel in found] == [("batch", "step"), ("loss", "step")]


def test_a_single_step_without_the_counter_is_drawn_all_the_same():
    """A reproduction that crashed early left one number, and no epoch."""
    alone = Curve(source="stdout", count=1, steps=({"loss": 2.0},))
    here = [replace(run(1, status=1), curve=alone)]
    assert [panel.name for panel in panels([curved(1, [1.0, 0.5, 0.25])], here, None)] == ["loss"]


def test_runs_that_do_not_count_are_not_counted():
    """The mean is over the fresh seeds, and the page says of how many runs."""
    author = record(*(run(seed, test_accuracy=0.9 + seed / 1e4) for seed in range(1, 6)))
    here = record(*(run(seed, test_accuracy=0.9 + seed / 2e4) for seed in range(1, 11)))
    shown = page(author, here)
    assert "5 runs" in shown
    assert "10 runs</" not in shown


def test_what_only_counts_is_no_curve():
    """The epoch beside the step gets no panel of its own."""
    steps = tuple({"step": n + 1.0, "epoch": n // 3 + 1.0, "loss": 1 / (n + 1)} for n in range(9))
    curve = Curve(source="metrics.jsonl", count=9, steps=steps)
    found = panels([replace(run(1), curve=curve)], [], None)
    assert [(panel.name, panel.across) for panel in found] == [("loss", "step")]


# -- the command


def drawn(*words: object) -> str:
    """Run `torchship report` and return the path that it printed."""
    done = CliRunner().invoke(torchship, ["report", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout.strip()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Give the command a store of its own, with nothing in it."""
    monkeypatch.setenv("TORCHSHIP_HOME", str(tmp_path / "store"))
    return tmp_path


def test_a_directory_gets_a_page(home):
    """A record is drawn into its own directory; a reproduction is judged by the author's record."""
    (home / "record.json").write_bytes(encode(accuracies(*FIVE)))
    assert drawn(home) == str(home / "report.html")
    assert "5 RUNS" in (home / "report.html").read_text("utf-8")
    (home / "author.json").write_bytes(encode(accuracies(*FIVE)))
    (home / "record.json").write_bytes(encode(accuracies(FIVE[0])))
    drawn(home)
    assert "BIT-IDENTICAL" in (home / "report.html").read_text("utf-8")


def test_nothing_is_written_through_a_link(home):
    """A directory may be a stranger's: a link where its page belongs is replaced."""
    mine = home / "mine"
    mine.write_text("mine")
    (home / "record.json").write_bytes(encode(accuracies(*FIVE)))
    (home / "report.html").symlink_to(mine)
    assert drawn(home) == str(home / "report.html")
    assert mine.read_text() == "mine"
    assert "5 RUNS" in (home / "report.html").read_text("utf-8")


def test_two_files_are_compared(home):
    """The author's comes first, as in `compare`; -o names the page."""
    theirs, ours = home / "theirs.json", home / "ours.json"
    theirs.write_bytes(encode(accuracies(*FIVE)))
    ours.write_bytes(encode(accuracies(0.95, 0.951, first=8)))
    assert drawn(theirs, ours) == str(home / "ours.html")
    assert drawn(theirs, ours, "-o", home / "page.html") == str(home / "page.html")
    assert (home / "page.html").read_bytes() == (home / "ours.html").read_bytes()
    assert "NOT REPRODUCED" in (home / "page.html").read_text("utf-8")
    assert read(theirs).digest != read(ours).digest


def test_a_time_is_written_without_a_locale():
    """The day of the record is in the page, in English wherever it is made."""
    assert NOW.day == 23
    assert "Run record, 23 November 2026" in page(accuracies(0.9))
