"""The command that starts a program's processes on each node."""

import os
import subprocess

import pytest
from msgspec.structs import replace

from torchship.launch.job import Shape
from torchship.launch.torchrun import command

SHAPE = Shape(nodes=3, processes=2, port=4242)
OPTIONS = ("--nnodes=3", "--nproc-per-node=2", "--max-restarts=0", "--master-port=4242")


@pytest.mark.parametrize(
    ("given", "started"),
    [
        (("python", "main.py", "--lr", "1"), ("main.py", "--lr", "1")),
        (("/opt/venv/bin/python3.11", "-u", "main.py"), ("main.py",)),
        (("python3", "-m", "package", "-x"), ("-m", "package", "-x")),
        (("python", "-c", "print(1)"), ("--no-python", "python", "-c", "print(1)")),
        (("python", "-O", "main.py"), ("--no-python", "python", "-O", "main.py")),
        (("python",), ("--no-python", "python")),
        (("./train", "a b"), ("--no-python", "./train", "a b")),
    ],
)
def test_a_command_is_started_by_torchrun(given, started):
    """Python's scripts and modules are torchrun's own; other programs are started as they are."""
    assert command(given, SHAPE) == ("torchrun", *OPTIONS, *started)


def test_a_command_of_torchrun_keeps_its_options():
    """What the user tells torchrun comes last, and so it counts."""
    given = ("/opt/venv/bin/torchrun", "--max-restarts=5", "main.py")
    assert command(given, SHAPE) == (given[0], *OPTIONS, "--max-restarts=5", "main.py")


@pytest.mark.parametrize(("attempt", "told"), [("0", "4242 True"), ("2", "4244 False")])
def test_processes_that_are_started_again_meet_elsewhere(attempt, told):
    """The first attempt meets at torchrun's store, each later one at a port of its own."""
    shown = "print(os.environ['MASTER_PORT'], os.environ['TORCHELASTIC_USE_AGENT_STORE'])"
    given = ("python3", "-c", f"import os; {shown}")
    started = command(given, replace(SHAPE, max_restarts=2))
    options = (*OPTIONS[:2], "--max-restarts=2", OPTIONS[3])
    assert started[: len(options) + 2] == ("torchrun", *options, "--no-python")
    environment = {
        "PATH": os.environ["PATH"],
        "MASTER_PORT": "4242",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": attempt,
    }
    process = started[len(options) + 2 :]
    assert subprocess.check_output(process, env=environment, text=True) == f"{told}\n"
