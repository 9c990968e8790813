"""A log that is followed: passed on byte by byte, its last line read."""

import os

import pytest

from torchship.launch.kubernetes.kubectl import Kubectl
from torchship.launch.kubernetes.log import Ended, Log
from torchship.launch.kubernetes.settings import Settings


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Return what follows a log that a program named kubectl prints, and what was passed on."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")

    def followed(script: str, *, times: int = 1) -> tuple[Log, bytes]:
        program = tools / "kubectl"
        program.write_text(f"#!/bin/sh\n{script}")
        program.chmod(0o755)
        passed = (tmp_path / "passed").open("wb+", buffering=0)
        log = Log(Kubectl(Settings()), "pod-0", "main", "job-1", (passed.fileno(),))
        for _ in range(times):
            log.copy(5)
        log.close()
        passed.seek(0)
        return log, passed.read()

    return followed


def stamp(number: int) -> str:
    """Return the time that a line begins with: as many nanoseconds after the first second."""
    return f"2026-11-23T07:00:{number // 10:02d}.{number:09d}+02:00 "


def lines(*texts: str, first: int = 0) -> str:
    """Return a command that prints lines with their times."""
    stamped = "".join(f"{stamp(first + at)}{text}" for at, text in enumerate(texts))
    return f"printf '{stamped}'\n"


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        (lines(r"one\n", r"two\n", r"\n", r"job-1 3 77\n"), b"one\ntwo\n"),
        (lines(r"no newline\n", r"job-1 3 77\n"), b"no newline"),
        (lines(r"\n", r"job-1 3 77\n"), b""),
        (
            lines(r"a\n", r"job-2 0 1\n", r"b\n", r"\n", "jo")
            + r"sleep 0.1; printf 'b-1 3 77\nmore'",
            b"a\njob-2 0 1\nb\n",
        ),
        (
            lines(r"x job-1 4 1\n", r"\n")[:-2] + f"{stamp(2)[:9]}'; sleep 0.5; "
            f"printf '{stamp(2)[9:]}job-1 3 77\\n'",
            b"x job-1 4 1\n\n",
        ),
    ],
)
def test_the_last_line_is_ours(follow, script, printed):
    """All that the program printed is passed on, and nothing else; how it ended is known."""
    log, passed = follow(script)
    assert log.ended == Ended(status=3, pid=77)
    assert passed == printed


def test_lines_do_not_wait(follow):
    """A line end that may begin our own line is passed on when nothing follows it."""
    log, passed = follow(lines(r"one\n") + "sleep 0.6\n" + lines(r"two\n", "half", first=1))
    assert (log.ended, passed) == (None, b"one\ntwo\nhalf")


AGAIN = """
    cd {folder}; echo "$@" >> calls
    if [ $(wc -l < calls) = 1 ]; then {first} else {then} fi
"""


def test_a_connection_that_breaks_loses_and_repeats_nothing(follow, tmp_path):
    """The log is asked for again from its last second on, and goes on where it broke off."""
    texts = r"one\n", r"two\n", r"three\n", r"\n", r"job-1 0 1\n"
    first = lines(r"one\n", "tw")
    log, passed = follow(
        AGAIN.format(folder=tmp_path, first=first, then=lines(*texts)),
        times=2,
    )
    assert log.ended == Ended(status=0, pid=1)
    assert passed == b"one\ntwo\nthree\n"
    calls = (tmp_path / "calls").read_text().splitlines()
    assert ["--since-time=2026-11-23T05:00:00Z" in call for call in calls] == [False, True]


def test_a_log_whose_beginning_is_gone(follow, tmp_path):
    """A node keeps the end of a long log alone: what is new is told by its time."""
    first = lines(*[rf"line {number}\n" for number in range(200)])
    then = lines(r"line 199\n", r"line 200\n", r"\n", r"job-1 0 1\n", first=199)
    log, passed = follow(AGAIN.format(folder=tmp_path, first=first, then=then), times=2)
    assert log.ended == Ended(status=0, pid=1)
    assert passed.decode() == "".join(f"line {number}\n" for number in range(201))


def test_lines_of_the_same_time(follow, tmp_path):
    """A coarse clock gives several lines one time: each of them is passed on once."""
    same = [f"{stamp(0)}{each}\\n" for each in "abcd"]
    first = f"printf '{''.join(same[:2])}'\n"
    then = f"printf '{''.join(same)}'\n"
    _, passed = follow(AGAIN.format(folder=tmp_path, first=first, then=then), times=2)
    assert passed == b"a\nb\nc\nd\n"


def test_a_line_of_the_nodes_own(follow):
    """What a node says without a time is passed on as it is."""
    _, passed = follow(r"printf 'unable to retrieve container logs for containerd://x\n'")
    assert passed == b"unable to retrieve container logs for containerd://x\n"


def test_a_refusal_is_kept(follow):
    """What kubectl says when there is no log can be told."""
    log, passed = follow("echo 'Error from server (Forbidden): pods is forbidden' >&2; exit 1")
    assert (log.complaint, passed) == ("pods is forbidden", b"")
