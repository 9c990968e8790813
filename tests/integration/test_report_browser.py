"""The report in a real browser: both colour schemes, a phone, paper, and strangers' records.

Debian's chromium, headless, on a profile of its own. No page here may say anything to its
console: a policy that was broken, or a fault of the drawing, stands there.
"""

from __future__ import annotations

import html
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from tests.integration.registry import require
from tests.runs.records import accuracies, whole
from tests.runs.report.test_confusion import left, misread, written
from tests.runs.report.test_confusion import page as confused
from tests.runs.report.test_page import CASES, FIVE, curved, described, hostile, page, record

pytestmark = pytest.mark.engine

PHONE, TABLET, DESK = 390, 768, 1280


@pytest.fixture(scope="module")
def browser() -> str:
    """Return the browser's program."""
    require("chromium")
    return shutil.which("chromium") or ""


@pytest.fixture
def show(browser, tmp_path):
    """Return what opens a page with some options, and gives what the browser printed."""

    def opened(source: str, *options: str) -> str:
        file = tmp_path / "page.html"
        file.write_text(source, encoding="utf-8")
        done = subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--disable-dev-shm-usage",
                "--enable-logging=stderr",
                f"--user-data-dir={tmp_path / 'profile'}",
                *options,
                file.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            env={"HOME": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        )
        assert done.returncode == 0, done.stderr
        said = re.findall(r".*CONSOLE.*", done.stderr)
        assert not said, said[0]
        return done.stdout

    return opened


def in_frame(source: str, width: int) -> str:
    """Return a page that shows another in a frame, and measures it: its title is the answer.

    A window of a headless browser is never as narrow as a phone; a frame is.
    """
    return (
        f'<!doctype html><meta charset="utf-8"><iframe width="{width}" height="900" '
        f'srcdoc="{html.escape(source)}"></iframe><script>'
        "onload = () => { const d = document.querySelector('iframe').contentDocument;"
        "const all = d.body.querySelectorAll('p, h1, h2, h3, dl, pre, .banner, .plot, figure');"
        f"const wide = [...all].filter(e => e.getBoundingClientRect().right > {width} + 0.5);"
        "document.title = JSON.stringify([d.documentElement.scrollWidth, wide.length,"
        "d.querySelectorAll('svg').length,"
        "getComputedStyle(d.querySelector('.banner')).display, d.title]) }</script>"
    )


def pixel(file: Path) -> tuple[int, ...]:
    """Return the first pixel of a PNG (RFC 2083: a filter's byte, then the first row)."""
    raw = file.read_bytes()
    place, data = 8, b""
    while place < len(raw):
        (length,) = struct.unpack(">I", raw[place : place + 4])
        if raw[place + 4 : place + 8] == b"IDAT":
            data += raw[place + 8 : place + 8 + length]
        place += 12 + length
    return tuple(zlib.decompress(data)[1:4])


@pytest.mark.parametrize("width", [PHONE, TABLET, DESK])
@pytest.mark.parametrize("case", ["everything", "not reproduced", "whole"])
def test_nothing_is_wider_than_the_screen(show, case, width):
    """On a phone, a tablet and a desk, no page scrolls sideways, and the style applies."""
    source = page(*CASES[case], image=described())
    found = show(in_frame(source, width), "--dump-dom")
    measured = re.search(r"<title>\[(\d+),(\d+),(\d+),\"(\w+)\"", found)
    assert int(measured[1]) <= width
    assert int(measured[2]) == 0
    assert int(measured[3]) > 2
    assert measured[4] == "grid"


def test_the_console_tells(show):
    """What the other tests listen for is said: a script in a page breaks its policy aloud."""
    with pytest.raises(AssertionError, match="violates the following"):
        show(page(*CASES["within"]).replace("</body>", "<script>1</script></body>"), "--dump-dom")


def test_a_strangers_words_do_nothing(show):
    """A record full of scripts opens without a word on the console, under its own title."""
    source = page(hostile(whole()), hostile(whole()))
    found = show(in_frame(source, PHONE), "--dump-dom")
    measured = re.search(r"<title>\[(\d+),(\d+),", found)
    assert int(measured[1]) <= PHONE
    assert int(measured[2]) == 0
    assert "BIT-IDENTICAL" in found


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize(
    "labels",
    [tuple("0123456789"), tuple(f"automobile {n}" for n in range(100))],
    ids=["ten", "hundred"],
)
def test_mistakes_fit_the_screen_and_their_pictures_are_seen(show, tmp_path, labels, width):
    """A matrix takes the width that there is, and the browser draws every misread example."""
    size = len(labels)
    matrix = [[1234 if a == b else (a + b) % 3 for a in range(size)] for b in range(size)]
    document = written(labels=labels, matrix=matrix, misread=[misread(0, 1)] * 40)
    source = confused(tmp_path, left(tmp_path, document))
    measure = (
        "onload = () => { const d = document.querySelector('iframe').contentDocument;"
        "const drawn = [...d.images].filter(i => i.complete && i.naturalWidth === 2);"
        "const matrix = d.querySelector('.matrix, .cells svg').getBoundingClientRect();"
        "document.title = JSON.stringify("
        "[d.documentElement.scrollWidth, matrix.right, drawn.length, d.images.length]) }"
    )
    frame = re.sub(r"<script>.*</script>", f"<script>{measure}</script>", in_frame(source, width))
    found = re.search(r"<title>\[([\d.]+),([\d.]+),(\d+),(\d+)\]", show(frame, "--dump-dom"))
    assert float(found[1]) <= width
    assert float(found[2]) <= width
    assert (found[3], found[4]) == ("40", "40")


def test_the_page_follows_the_colour_scheme(show, tmp_path):
    """Light on a light machine, dark on a dark one."""
    author = record(
        *(curved(seed, [1.0, 0.5, 0.3], test_accuracy=v) for seed, v in enumerate(FIVE))
    )
    source = page(author, accuracies(0.9914, first=9))
    shot = tmp_path / "shot.png"
    light = show(source, f"--screenshot={shot}", "--window-size=800,600")
    assert (light, pixel(shot)) == ("", (0xFD, 0xFD, 0xFB))
    show(
        source,
        f"--screenshot={shot}",
        "--window-size=800,600",
        "--blink-settings=preferredColorScheme=0",
    )
    assert pixel(shot) == (0x16, 0x18, 0x1B)


def test_the_page_prints(show, tmp_path):
    """On paper it takes a few pages, also of what a screen folds away."""
    paper = tmp_path / "report.pdf"
    show(page(*CASES["whole"]), f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    raw = paper.read_bytes()
    assert raw.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", raw)) <= 8
