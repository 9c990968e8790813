"""What the user watches: lines in a log, bars on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

from torchship.display import Aside, display

HOSTILE = "what \x1b[31mred\x9b2J\u202e\nreproduced\r"
HARMLESS = "what \ufffd[31mred\ufffd2J\ufffd reproduced\ufffd"

SHOW = """
import time
import threading
from torchship.display import Aside, display
with display() as shown:
    shown.say("before [the] bar")
    together = threading.Barrier(8)
    bars = set()
    def begin():
        together.wait()
        task = shown.task("one of many")
        bars.add(task._progress)
        task.finish()
    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(bars) == 1
    task = shown.task("torch [cpu]", 100)
    task.advance(50); time.sleep(0.3)
    shown.say("beside :x: the bar" + "-" * 200 + "end")
    time.sleep(0.2)
    Aside().say("a damaged blob" + "-" * 200 + "end")
    HOSTILE = "what \\x1b[31mred\\x9b2J\\u202e\\nreproduced\\r"
    shown.say(HOSTILE)
    Aside().say(HOSTILE)
    shown.task(HOSTILE, 100); time.sleep(0.2)
    task.advance(50)
    task.finish()
Aside().say(HOSTILE)
Aside().say("after the bar")
print("the answer")
"""


def test_lines_in_a_log(capsys):
    """In a log each thing said is a line on stderr, and quick work says nothing of itself."""
    with display() as shown:
        shown.say("resolving")
        task = shown.task("torch", 100)
        task.advance(100)
        task.finish()
    captured = capsys.readouterr()
    assert captured.err == "resolving\n"
    assert captured.out == ""


def test_what_is_said_aside_is_a_line_too(capsys):
    """Who has no display at hand says lines all the same, and shows no bars."""
    task = Aside().task("torch", 100)
    task.advance(100)
    task.finish()
    Aside().say("a damaged blob")
    assert capsys.readouterr().err == "a damaged blob\n"


def test_what_strangers_say_is_one_line(capsys):
    """Whoever has a word in a line can neither begin another one nor steer the terminal."""
    with display() as shown:
        shown.say(HOSTILE)
        Aside().say("  indented\tas\r\nours")
    assert capsys.readouterr().err == f"{HARMLESS}\n  indented as ours\n"


def test_slow_work_tells_its_size_and_time(capsys, monkeypatch):
    """Work of a second or more says what it was when it is done."""
    clock = iter((10.0, 12.5))
    monkeypatch.setattr("torchship.display.time.monotonic", lambda: next(clock))
    with display() as shown:
        shown.task("torch", 192_000_000).finish()
    assert capsys.readouterr().err == "torch 192 MB in 2.5 s\n"


def test_a_live_display_on_a_terminal():
    """On a terminal a bar shows while work goes on, and is gone after; brackets are just text."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW],
        stderr=theirs,
        stdout=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the terminal's other end is closed
        pass
    os.close(ours)
    assert process.communicate()[0] == b"the answer\n"
    text = shown.decode()
    assert "before [the] bar" in text
    assert "torch [cpu]" in text
    assert "beside :x: the bar" + "-" * 200 + "end" in text  # copied whole, as it was said
    # from elsewhere, too: on a line that the bar has left
    assert "\r\x1b[2Ka damaged blob" + "-" * 200 + "end\r\n" in text
    # what strangers say, before and after the bar, is one line of text and nothing else
    assert text.count(HARMLESS + "\r\n") == 3
    assert HARMLESS in text.replace(HARMLESS + "\r\n", "")  # the bar of such a label
    assert not re.search("\x1b\\[31mred|\x9b|\u202e|\nreproduced", text)
    assert text.endswith("after the bar\r\n")
    assert "\x1b[?25h" in text  # the cursor is shown again
