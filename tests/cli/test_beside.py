"""Two halves of one command at once."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) == 1, reason="with one processor there is no other half"
)


def script(body: str, *, before: str = "") -> list[str]:
    """Return a program that does `beside` what ``body`` defines: ``work`` and ``meanwhile``."""
    return [
        sys.executable,
        "-c",
        "import os, signal, sys, time\n"
        "from torchship.cli import ending\n"
        "from torchship.cli.beside import beside\n"
        "from torchship.errors import TorchshipError\n"
        f"{textwrap.dedent(before)}\n{textwrap.dedent(body)}\n"
        "def both():\n    print(*beside(work, meanwhile))\n"
        "sys.exit(ending.status(both))\n",
    ]


def ended(body: str) -> tuple[int, str, str]:
    """Run such a program to its end."""
    done = subprocess.run(script(body), capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_both_halves_are_done_at_once():
    """Each may wait for the other, and both results come back."""
    body = """
    reading, writing = os.pipe()
    def work():
        os.write(writing, b"ready")
        return "worked in %d" % os.getppid()
    def meanwhile():
        os.read(reading, 5)
        return os.getpid()
    """
    status, out, err = ended(body)
    assert (status, err) == (0, "")
    first, _, second = out.strip().rpartition(" ")
    assert first == f"worked in {second}"


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        ("TorchshipError('no room', hint='make some')", 1, "torchship: no room\n  make some\n"),
        ("OSError(28, 'No space left', 'blob')", 1, "torchship: cannot use blob: No space left"),
        ("KeyboardInterrupt", 130, "interrupted\n"),
    ],
)
def test_what_fails_in_the_worker_is_told_once(raised, status, told):
    """It ends the command as it would have without a worker, whatever the other half says."""
    body = f"""
    def work():
        raise {raised}
    def meanwhile():
        raise TorchshipError("never told")
    """
    found, out, err = ended(body)
    assert (found, out) == (status, "")
    assert err.startswith(told)
    assert err.count(told.splitlines()[0]) == 1
    assert "never told" not in err


def test_what_fails_here_is_told_when_the_work_is_done():
    """A registry that does not answer takes nothing from the build."""
    body = """
    def work():
        time.sleep(0.2)
        print("worked", file=sys.stderr)
        return ""
    def meanwhile():
        raise TorchshipError("no answer")
    """
    assert ended(body) == (1, "", "worked\ntorchship: no answer\n")


def test_a_bug_in_the_worker_ends_nothing_twice():
    """Its traceback is shown, and the rest of the program runs in one process only."""
    status, out, err = ended(
        """
        def work():
            return 1 / 0
        def meanwhile():
            return ""
        """
    )
    assert (status, out) == (1, "")
    assert err.count("ZeroDivisionError") == 1


def test_a_worker_that_is_killed_is_told():
    """Out of memory, the kernel kills one process, and not the other."""
    status, _, err = ended(
        """
        def work():
            os.kill(os.getpid(), signal.SIGKILL)
        def meanwhile():
            return ""
        """
    )
    assert status == 1
    assert err.startswith("torchship: the build was killed (SIGKILL)\n")


@pytest.mark.parametrize("whole", [True, False], ids=["terminal", "kill"])
def test_ctrl_c_ends_both(whole, tmp_path):
    """A terminal sends it to both processes, `kill` to the first alone: told once, nobody stays."""
    begun = tmp_path / "begun"
    body = f"""
    def work():
        with open({str(begun)!r}, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(60)
    def meanwhile():
        return ""
    """
    process = subprocess.Popen(
        script(body), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        for _ in range(200):
            if begun.exists() and begun.read_text():
                break
            time.sleep(0.05)
        (os.killpg if whole else os.kill)(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "interrupted\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)
