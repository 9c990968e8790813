"""One training in several processes: torchrun in an image, on one machine and on two addresses.

What is trained is `examples/mnist-fast`, made small, on digits drawn here. An image of it is
built once, from what the machine's own store has of torch already. Two machines are two network
namespaces with a cable between them: each has its own addresses, and its own 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.registry import require
from tests.machine import TORCHSHIP

from torchship.engines import namespaces

pytestmark = [pytest.mark.engine, pytest.mark.network, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = """
[tool.torchship]
command = ["python", "main.py"]
torch = "cpu"
environment = { PYTHONUNBUFFERED = "1", OMP_NUM_THREADS = "1" }
"""
SMALL = ("--data", "/digits", "--widths", "8", "16", "32", "--batch-size", "100")
SHORT = (*SMALL, "--epochs", "6")
LONG = (*SMALL, "--epochs", "2000")
PROMPT = 45.0
"""Seconds within which a run whose process died must have ended, on a busy machine too."""

HEAD, OTHER = "10.9.0.1", "10.9.0.2"
PORT = "29500"
MACHINES = """
set -eu
echo nameserver 127.0.0.1 >resolver  # one that refuses at once: no other is in reach
[ ! -e /etc/resolv.conf ] || mount --bind resolver /etc/resolv.conf
unshare --net sleep 600 &
other=$!
trap 'kill $other' EXIT
while [ "$(readlink /proc/$other/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
ip link set lo up
ip link add cable type veth peer name cable netns $other
ip address add {head}/24 dev cable; ip link set cable up; ip route add default dev cable
nsenter --target=$other --net sh -eu -c '
ip link set lo up
ip address add {other}/24 dev cable; ip link set cable up; ip route add default dev cable'
nsenter --target=$other --net {second} >second.log 2>&1 &
second=$!
{first} >first.log 2>&1 || first_status=$?
wait $second || second_status=$?
ip -statistics -json link show cable >cable.json
echo "${{first_status:-0}} ${{second_status:-0}}"
"""


@dataclass(frozen=True, kw_only=True)
class Project:
    """The image, the digits that it trains on, and the variables that `torchship` needs here."""

    image: str
    digits: Path
    folder: Path

    def run(self, name: str, *program: str, options: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the command that runs a program in the image, its run directory by ``name``."""
        return (
            *TORCHSHIP,
            *("run", "--engine=native", "-o", str(self.folder / name)),
            *("-v", f"{self.digits}:/digits:ro", *options, self.image, "--", *program),
        )

    def output(self, name: str) -> dict[str, object]:
        """Return a run's metrics."""
        return json.loads((self.folder / name / "output" / "metrics.json").read_text())

    def files(self, name: str) -> list[str]:
        """Return the names of what a run wrote."""
        return sorted(path.name for path in (self.folder / name / "output").iterdir())


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> tuple[str, Path]:
    """Build the image; return its digest, and a folder of digits."""
    obstacle = namespaces.obstacle()
    if obstacle is not None:
        required = os.environ.get("TORCHSHIP_REQUIRE_ENGINES") == "1"
        (pytest.fail if required else pytest.skip)(obstacle.reason)
    folder = tmp_path_factory.mktemp("distributed")
    project, digits = folder / "project", folder / "digits"
    project.mkdir()
    for name in ("main.py", "requirements.txt"):
        shutil.copyfile(EXAMPLES / "mnist-fast" / name, project / name)
    (project / "pyproject.toml").write_text(SETTINGS)
    draw = (sys.executable, EXAMPLES / "synthetic_digits.py", digits, "--train", "1000")
    subprocess.run([*map(str, draw), "--test", "500"], check=True, capture_output=True)
    built = subprocess.run(
        [*TORCHSHIP, "build", str(project), "-t", "distributed-test"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return built.stdout.strip(), digits


@pytest.fixture
def project(image, tmp_path) -> Project:
    """Give the image with run directories of the test's own."""
    return Project(image=image[0], digits=image[1], folder=tmp_path)


def torchrun(*words: str, processes: int = 2) -> tuple[str, ...]:
    """Return the program's command under torchrun, on one machine unless the options say more."""
    return ("torchrun", f"--nproc-per-node={processes}", *words)


def program(*words: str) -> tuple[str, ...]:
    """Return the program with its options, as torchrun takes them."""
    return ("main.py", "--distributed", "--no-accel", *words)


def done(command: Sequence[str], **more) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, **more)


def said(path: Path, words: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a log says something."""
    deadline = time.monotonic() + 120
    while not (path.is_file() and words in path.read_text(errors="replace")):
        assert process.poll() is None, path.read_text(errors="replace")
        assert time.monotonic() < deadline, path.read_text(errors="replace")
        time.sleep(0.05)


def process_of(rank: int, below: int) -> int:
    """Return the number, on this machine, of a rank's process that descends from another."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = status.read_text().partition(" (")
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(pid)] = int(rest.rpartition(") ")[2].split()[1])

    def descends(pid: int) -> bool:
        while pid in parents and pid != below:
            pid = parents[pid]
        return pid == below

    for pid in filter(descends, parents):
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if f"RANK={rank}".encode() in variables:
            return pid
    raise AssertionError(f"there is no process of rank {rank}")


# -- one machine


@pytest.fixture(scope="module")
def alone(image, tmp_path_factory) -> Project:
    """Give what one process reaches: what several are compared with."""
    found = Project(image=image[0], digits=image[1], folder=tmp_path_factory.mktemp("alone"))
    ended = done(found.run("run", "python", "main.py", "--no-accel", *SHORT))
    assert ended.returncode == 0, ended.stderr
    return found


def agrees(found: Project, name: str, alone: Project) -> None:
    """Check that a run of several processes reached what one reaches.

    Not to the bit: batch normalisation takes its statistics of each process's share of a batch,
    and sums of other parts round otherwise.
    """
    one, several = alone.output("run"), found.output(name)
    assert one["test_accuracy"] > 0.9
    assert several["test_accuracy"] == pytest.approx(one["test_accuracy"], abs=0.03)
    assert several["test_loss"] == pytest.approx(one["test_loss"], abs=0.1)
    curves = [
        [json.loads(line) for line in (folder / "output/metrics.jsonl").read_text().splitlines()]
        for folder in (alone.folder / "run", found.folder / name)
    ]
    steps = [[(point["step"], point["lr"]) for point in curve] for curve in curves]
    assert steps[0] == steps[1]


@pytest.fixture(scope="module")
def pair(image, tmp_path_factory) -> Project:
    """Give what two processes reach on one machine, without a network."""
    found = Project(image=image[0], digits=image[1], folder=tmp_path_factory.mktemp("pair"))
    ended = done(found.run("run", *torchrun(*program(*SHORT))))
    assert ended.returncode == 0, ended.stderr
    return found


def test_two_processes_reach_what_one_does(pair, alone):
    """Without a network torchrun works: the same batches, the same accuracy, one output."""
    agrees(pair, "run", alone)
    assert pair.files("run") == alone.files("run")
    log = (pair.folder / "run" / "stdout.log").read_text()
    assert log.count("Accuracy: ") == 1


def test_a_process_that_is_killed_ends_the_run(project):
    """Its run fails soon, with a status that is not 0, and its log names the signal."""
    command = project.run("killed", *torchrun(*program(*LONG)))
    log = project.folder / "killed" / "stdout.log"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        said(log, "Train Step", run)
        os.kill(process_of(1, run.pid), signal.SIGKILL)
        killed = time.monotonic()
        assert run.wait(PROMPT) == 1
    assert time.monotonic() - killed < PROMPT
    text = log.read_text()
    assert "Signal 9 (SIGKILL)" in text
    assert "rank      : 1 (local_rank: 1)" in text
    assert json.loads((project.folder / "killed" / "record.json").read_text())


def test_a_process_that_is_killed_is_started_again_when_asked_for(project):
    """With --max-restarts 1 all processes start anew once, and the run comes to its end."""
    command = project.run("again", *torchrun("--max-restarts=1", *program(*SMALL, "--epochs=20")))
    log = project.folder / "again" / "stdout.log"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        said(log, "Train Step", run)
        os.kill(process_of(1, run.pid), signal.SIGKILL)
        assert run.wait(240) == 0, log.read_text()
    assert log.read_text().count("Data: not MNIST") == 2
    assert project.output("again")["test_accuracy"] > 0.95
    curve = (project.folder / "again" / "output" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in curve]
    assert steps == sorted(set(steps))


def one_of_two(port: int) -> list[str]:
    """Return options for the first of two processes, as torchrun would have it: by variables."""
    variables = {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]


def test_a_batch_that_cannot_be_shared_is_refused(project):
    """One line says which numbers do not go together."""
    command = project.run(
        "odd", "python", *program("--batch-size", "255"), options=one_of_two(29500)
    )
    assert done(command).returncode == 1
    log = (project.folder / "odd" / "stdout.log").read_text()
    (line,) = (line for line in log.splitlines() if line.startswith("main.py: error: "))
    assert "--batch-size 255" in line
    assert "2 cannot share it" in line
    assert "Traceback" not in log


def test_a_port_that_is_taken_is_said(project):
    """One line names the address at which the processes were to meet."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ("--network", *one_of_two(port))
        ended = done(project.run("taken", "python", *program(*SHORT), options=options))
    assert ended.returncode == 1
    log = (project.folder / "taken" / "stdout.log").read_text()
    (line,) = (line for line in log.splitlines() if line.startswith("main.py: error: "))
    assert f"127.0.0.1:{port}" in line
    assert "Traceback" not in log


# -- two machines


def machines(project: Project, words: Sequence[str]) -> subprocess.Popen[str]:
    """Start a program on two machines; what the process prints in the end are both statuses."""
    for tool in ("unshare", "nsenter", "ip"):
        require(tool)
    node = ("--nnodes=2", f"--master-addr={HEAD}", f"--master-port={PORT}")
    first, second = (
        project.run(
            name,
            *torchrun(*node, f"--node-rank={rank}", *program(*words), processes=1),
            options=("--network",),
        )
        for rank, name in enumerate(("first", "second"))
    )
    script = MACHINES.format(
        head=HEAD, other=OTHER, first=shlex.join(first), second=shlex.join(second)
    )
    return subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", script],
        cwd=project.folder,
        stdout=subprocess.PIPE,
        text=True,
    )


def statuses(run: subprocess.Popen[str], project: Project, timeout: float) -> list[int]:
    """Wait for both machines, and return what their runs exited with."""
    out, _ = run.communicate(timeout=timeout)
    logs = [
        file.read_text() for file in (project.folder / "first.log", project.folder / "second.log")
    ]
    assert out, "\n".join(logs)
    return [int(word) for word in out.split()]


def test_two_machines_do_what_two_processes_do(project, pair):
    """A container on each of two addresses: they talk over the cable, and give the same bits.

    The first has the output.
    """
    with machines(project, SHORT) as run:
        assert statuses(run, project, 280) == [0, 0], (project.folder / "first.log").read_text()
    assert project.files("first") == pair.files("run")
    for name in pair.files("run"):
        one, two = (
            each / "output" / name for each in (pair.folder / "run", project.folder / "first")
        )
        assert one.read_bytes() == two.read_bytes()
    assert project.files("second") == []
    (cable,) = json.loads((project.folder / "cable.json").read_text())
    assert cable["stats64"]["rx"]["bytes"] > 1_000_000


def test_a_machine_that_is_lost_ends_the_run_on_the_other(project):
    """Nobody waits for a machine whose process was killed."""
    with machines(project, LONG) as run:
        said(project.folder / "first.log", "Train Step", run)
        os.kill(process_of(1, run.pid), signal.SIGKILL)
        killed = time.monotonic()
        assert statuses(run, project, PROMPT) == [1, 1]
    assert time.monotonic() - killed < PROMPT
    assert "Signal 9 (SIGKILL)" in (project.folder / "second" / "stdout.log").read_text()
