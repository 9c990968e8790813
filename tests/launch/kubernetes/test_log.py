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


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        (r"printf 'one\ntwo\n\njob-1 3 77\n'", b"one\ntwo\n"),
        (r"printf 'no newline\njob-1 3 77\n'", b"no newline"),
        (r"printf '\njob-1 3 77\n'", b""),
        (
            r"printf 'a\njob-2 0 1\nb\n\njo'; sleep 0.1; printf 'b-1 3 77\nmore'",
            b"a\njob-2 0 1\nb\n",
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
    log, passed = follow(r"printf 'one\n'; sleep 0.6; printf 'two\n'")
    assert (log.ended, passed) == (None, b"one\ntwo\n")


def test_a_connection_that_breaks_loses_and_repeats_nothing(follow, tmp_path):
    """The log is asked for again, and goes on where it broke off."""
    script = f"""
        cd {tmp_path}; echo >> count
        printf 'one\\ntw'
        [ $(wc -l < count) -gt 1 ] && printf 'o\\nthree\\n\\njob-1 0 1\\n'
    """
    log, passed = follow(script, times=2)
    assert log.ended == Ended(status=0, pid=1)
    assert passed == b"one\ntwo\nthree\n"


def test_a_refusal_is_kept(follow):
    """What kubectl says when there is no log can be told."""
    log, passed = follow("echo 'Error from server (Forbidden): pods is forbidden' >&2; exit 1")
    assert (log.complaint, passed) == ("pods is forbidden", b"")
