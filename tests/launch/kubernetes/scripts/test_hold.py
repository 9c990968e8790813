"""The program that keeps a pod, run as a pod runs it."""

import os
import signal
import subprocess
import sys
import time
from importlib.resources import files

import pytest

HOLD = (files("torchship.launch.kubernetes") / "scripts" / "hold.py").read_text()
QUICK = HOLD.replace("SHORT = 5", "SHORT = 1")


def start(*command, seconds="60", errors="keep", index="0"):
    """Start the program, with pipes on its output."""
    return subprocess.Popen(
        [sys.executable, "-c", QUICK, "mark-1", seconds, errors, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "JOB_COMPLETION_INDEX": index},
    )


def until_marked(process) -> list[str]:
    """Return the words of the line that says that the command has ended."""
    for line in process.stdout:
        if line.startswith(b"mark-1 "):
            return line.decode().split()
    raise AssertionError("no such line")


@pytest.mark.parametrize(
    ("code", "status"),
    [("pass", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)],
)
def test_the_first_node_waits_until_its_output_was_fetched(code, status):
    """The status is told at once; the pod ends, with that status, when it hears of the fetch."""
    with start(sys.executable, "-c", code) as process:
        _, told, pid = until_marked(process)
        assert (int(told), int(pid)) == (status, process.pid)
        time.sleep(0.2)
        assert process.poll() is None
        os.kill(int(pid), signal.SIGUSR1)
        assert process.wait(timeout=10) == status


def test_it_does_not_wait_for_ever():
    """Where nobody fetches, the pod ends after the seconds that it was given."""
    with start(sys.executable, "-c", "pass", seconds="1") as process:
        assert process.wait(timeout=10) == 0


@pytest.mark.parametrize(("seconds", "index"), [("60", "1"), ("0", "0")], ids=["other", "question"])
def test_others_end_at_once(seconds, index):
    """Another node's pod, and that of a question, has nothing to be fetched."""
    with start(sys.executable, "-c", "print('x')", seconds=seconds, index=index) as process:
        assert process.communicate(timeout=10)[0] == b"x\n"
        assert process.returncode == 0


def test_a_pod_that_is_ended_while_it_waits_can_still_be_fetched():
    """SIGTERM, when another node's end ends the job, leaves the grace period for the fetch."""
    with start(sys.executable, "-c", "raise SystemExit(1)") as process:
        until_marked(process)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGUSR2)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        assert process.poll() is None
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=10) == 1


def test_a_pod_that_is_ended_and_not_fetched_does_not_stay():
    """Where the user has left, machines are free again in seconds."""
    with start(sys.executable, "-c", "raise SystemExit(1)") as process:
        until_marked(process)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 1
        assert 0.5 < time.monotonic() - began < 10


def test_sigterm_reaches_the_command():
    """A pod that is deleted ends its program in order."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    with start(sys.executable, "-c", code, index="1") as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 7


def test_a_question_prints_its_answer_alone():
    """A pod's log has both streams in one: what a question complains of is left out."""
    code = "import sys; sys.stderr.write('warning'); print('answer')"
    with start(sys.executable, "-c", code, seconds="0", errors="drop") as process:
        assert process.communicate(timeout=10) == (b"answer\n", b"")


def test_no_such_command():
    """What cannot be started is told, with the status that shells give."""
    with start("/no/such/command") as process:
        _, errors = process.communicate(timeout=10)
        assert errors == b"/no/such/command: No such file or directory\n"
        assert process.returncode == 127
