"""A program in a container on a terminal."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from .conftest import linux

pytestmark = linux

STARTER = """
import sys
from pathlib import Path
from torchship.engines.container import Container, run
from torchship.engines.relay import Streams
from torchship.engines.terminal import Terminal
box = Container(layers=(Path(sys.argv[1]),), command=tuple(sys.argv[3:]), scratch=Path(sys.argv[2]),
                environment={"PATH": "/usr/bin", "PS1": "$ ", "TERM": "dumb"})
status = run(box, Streams(stdin=0, terminal=Terminal(0)))
sys.exit(status)
"""


class Session:
    """A person at a terminal, for a test: types, waits for text."""

    def __init__(self, process, master):
        self.process, self.master, self.seen = process, master, ""

    def type(self, text):
        """Press keys."""
        os.write(self.master, text.encode())

    def wait_for(self, text, seconds=10):
        """Read what the terminal shows until a text has come."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come; there was {self.seen!r}"
            try:
                self.seen += os.read(self.master, 4096).decode()
            except OSError:
                raise AssertionError(f"{text!r} did not come; there was {self.seen!r}") from None
        self.seen = self.seen.split(text, 1)[1]

    def resize(self, rows, columns):
        """Change the window, as a person with a mouse does."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)


@pytest.fixture
def session(root, tmp_path):
    """Start a program on a new terminal of 33 rows and 101 columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    before = termios.tcgetattr(slave)
    processes = []

    def start(*command):
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, root, tmp_path / "scratch", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        processes.append(process)
        return Session(process, master)

    yield start
    for process in processes:
        process.kill()
        process.wait()
    after = termios.tcgetattr(slave)
    os.close(master)
    os.close(slave)
    assert after == before, "the terminal's settings were not restored"


def test_a_shell_on_a_terminal_of_the_containers_own(session):
    """It has job control, a name, and the size of the caller's terminal."""
    shell = session("bash", "--norc", "-i")
    shell.wait_for("$ ")
    shell.type("tty; stty size; echo $((6*7))\n")
    shell.wait_for("/dev/pts/0")
    shell.wait_for("33 101")
    shell.wait_for("42")
    shell.type("exit 9\n")
    assert shell.process.wait(10) == 9


def test_a_new_size_is_passed_on(session):
    """The program hears of it as from any terminal."""
    # Without a trap of its own, bash forgets a Ctrl-C that comes while a command ends by itself.
    traps = "trap 'stty size' WINCH; trap 'exit 130' INT"
    shell = session("bash", "-c", f"{traps}; echo ready; while :; do sleep 0.1; done")
    shell.wait_for("ready")
    shell.resize(40, 120)
    shell.wait_for("40 120")
    shell.type("\x03")
    assert shell.process.wait(10) == 130


def test_ctrl_c_is_a_key_that_the_containers_terminal_turns_into_a_signal(session):
    """It interrupts what runs in the foreground, not torchship, and not the shell."""
    shell = session("bash", "--norc", "-i")
    shell.wait_for("$ ")
    shell.type("sleep 60\n")
    time.sleep(0.5)
    shell.type("\x03")
    shell.type("echo still $((1+1))\n")
    shell.wait_for("still 2")
    shell.type("exit\n")
    shell.process.wait(10)


def test_end_of_file_is_a_key_as_well(session):
    """Ctrl-D ends a program that reads."""
    shell = session("python3", "-ISc", "import sys; print('ready'); print(len(sys.stdin.read()))")
    shell.wait_for("ready")
    shell.type("12345\n\x04")
    shell.wait_for("6")
    assert shell.process.wait(10) == 0


def test_the_callers_terminal_cannot_be_typed_into(session):
    """The old trick of pushing characters back into the terminal reaches only the container's."""
    program = (
        "import fcntl, os\n"
        "for fd in range(3):\n"
        "    for key in b'touch /tmp/pwned\\n':\n"
        "        try: fcntl.ioctl(fd, 0x5412, bytes([key]))\n"
        "        except OSError: pass\n"
        "print(sorted(os.readlink(f'/proc/self/fd/{fd}') for fd in range(3)))"
    )
    shell = session("python3", "-ISc", program)
    shell.wait_for("['/dev/pts/0', '/dev/pts/0', '/dev/pts/0']")
    shell.process.wait(10)
    shell.type("\n")
    ready, _, _ = select.select([shell.master], [], [], 0.3)
    left = os.read(shell.master, 4096).decode() if ready else ""
    assert "pwned" not in left


def test_a_caller_without_a_terminal_gives_one_of_the_usual_size(root, tmp_path):
    """Scripts run what insists on a terminal."""
    done = subprocess.run(
        [sys.executable, "-c", STARTER, root, tmp_path / "scratch", "stty", "size"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["24", "80"])
