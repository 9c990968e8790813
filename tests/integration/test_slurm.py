"""Launching on a real Slurm of two nodes: plumbing, with a program of a few lines of shell."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.integration import slurm
from tests.integration.containers import UID, Files, make, public_folder
from tests.integration.registry import free_port

from torchship import canonical
from torchship.layers.archive import Archive, Entry
from torchship.layers.layer import Materials
from torchship.oci import mediatypes
from torchship.oci.push import push
from torchship.oci.reference import Reference
from torchship.oci.store import Store
from torchship.progress import SILENT
from torchship.runs.publishing import read

pytestmark = pytest.mark.engine

EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist-fast"

# What the program sees of torchrun: its options, its own variables, then the program
TORCHRUN = b"""#!/bin/bash
options=()
while [[ $1 == --* ]]; do options+=("$1"); shift; done
echo "torchrun ${options[*]} rank=$PET_NODE_RANK head=$PET_MASTER_ADDR"
exec "$@"
"""
LABELS = {
    "dev.torchship.seed": "SEED={seed}",
    "dev.torchship.metrics": '{"accuracy":{"name":"accuracy","pattern":"accuracy: ([0-9.]+)"}}',
}


class Torchrun(Files):
    """A recipe of a stand-in for torchrun."""

    def write(self, archive: Archive, materials: Materials) -> None:
        """Write the one file."""
        archive.add(Entry(path="usr/bin/torchrun", size=len(TORCHRUN), mode=0o755), [TORCHRUN])


@pytest.fixture(scope="module")
def cluster():
    """Give a Slurm of two nodes."""
    with public_folder() as folder, slurm.running(folder / "c") as running:
        yield running


@pytest.fixture(scope="module")
def reference(tmp_path_factory, shared_registry) -> str:
    """Push a small image with a stand-in for torchrun; return its name."""
    store = Store(tmp_path_factory.mktemp("store"))
    tiny = make(store, None)
    added = store.derive(Torchrun(title="torchrun"), Materials(files={}, scratch=store.home))
    config = json.loads(tiny.raw_config)
    config["rootfs"]["diff_ids"].append(str(added.diff_id))
    config["config"]["Labels"] = LABELS
    manifest = json.loads(tiny.raw_manifest)
    manifest["layers"].append(added.descriptor.as_json())
    manifest["config"] = store.put(canonical.encode(config), mediatypes.OCI_CONFIG).as_json()
    written = store.put(canonical.encode(manifest), mediatypes.OCI_MANIFEST)
    name = Reference.parse(f"{shared_registry.host}/me/tiny:v1")
    push(store, written, name, progress=SILENT)
    return str(name)


class Launcher:
    """Launches in a folder of its own, with a store of its own."""

    def __init__(self, folder: Path, cluster: slurm.Cluster, reference: str) -> None:
        self.folder = folder
        self.patience = 60.0
        self.cluster = cluster
        self.reference = reference
        self.program: tuple[str, ...] = (sys.executable,)
        self.environment = {
            **os.environ,
            **cluster.environment,
            "TORCHSHIP_HOME": str(cluster.folder / "home"),
        }

    def tell(self, *arguments: str) -> str:
        """Run another command of torchship, and return what it prints."""
        done = subprocess.run(
            (*self.program, "-m", "torchship", *arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def words(self, *arguments: str) -> tuple[str, ...]:
        """Return a command line of torchship."""
        launch = ("launch", self.reference, "--on=slurm", *arguments)
        return (*self.program, "-m", "torchship", *launch)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it, and do not wait."""
        return subprocess.Popen(
            self.words(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """Run it to its end; return both streams. No job is left behind, however it ended."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=self.patience)
        finally:
            process.kill()
        assert process.returncode == status, err
        assert self.cluster.idle()
        assert not list(Path(self.environment["TORCHSHIP_HOME"]).glob("launch/*"))
        return out, err

    def record(self, out: str):
        """Return the record whose path was printed."""
        return read(self.folder / out.strip()).record


@pytest.fixture
def launch(tmp_path, cluster, reference) -> Launcher:
    """Give what launches the small image."""
    return Launcher(tmp_path, cluster, reference)


def test_two_nodes_run_an_image_and_its_record_is_collected(launch):
    """Torchrun is started on each node with its rank, and the head's address; outputs come back."""
    program = (
        'echo "accuracy: 0.$PET_NODE_RANK$SEED"; echo $FROM_IMAGE$OURS$UNSET$HOME >&2; pwd; '
        "ls / >/output/$PET_NODE_RANK; : >here"
    )
    out, err = launch("--nodes=2", "--port=4000", "-e", "OURS=it's", "--", "sh", "-c", program)
    assert f"runs on {slurm.BOTH}" in err
    for rank in range(2):
        told = "torchrun --nnodes=2 --nproc-per-node=1 --max-restarts=0 --master-port=4000"
        assert f"{told} --no-python rank={rank} head=127.0.0.1\n" in err
    assert err.count("1it's/root\n") == 2
    assert err.count("/workspace\n") == 2
    made = launch.record(out)
    (run,) = made.runs
    assert made.engine == "slurm, 2 nodes of 1 process"
    assert (run.status, run.seed, set(run.outputs)) == (0, 1, {"0", "1"})
    assert run.metrics["accuracy"] in (0.01, 0.11)
    log = Path(launch.folder, out.strip()).parent / "seed-1" / "stdout.log"
    assert "rank=1" in log.read_text()


def test_an_ordinary_user_runs_it_as_themselves(launch):
    """Nodes are root's, as everywhere; the program is root in its container, and the user's own."""
    home = launch.cluster.folder / "ada"
    home.mkdir()
    os.chown(home, UID, UID)
    launch.folder = home
    packages = os.pathsep.join(path for path in sys.path if path.endswith(("/src", "-packages")))
    user = {"HOME": "", "DOCKER_CONFIG": "docker", "TORCHSHIP_HOME": "home"}
    launch.environment |= {name: str(home / place) for name, place in user.items()}
    launch.environment["PYTHONPATH"] = packages
    ids = (f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
    launch.program = ("setpriv", *ids, "/usr/bin/python3")
    out, err = launch("--nodes=2", "--", "sh", "-c", "echo accuracy: 0.5; id >/output/id; : >here")
    outputs = home / Path(out.strip()).parent / "seed-1/output"
    assert (outputs / "id").stat().st_uid == UID
    assert (outputs / "id").read_text().startswith("uid=0(root) gid=0")
    assert "is submitted" in err


TAMPER = (
    "cd /run/torchship && for name in start head node status stdout; do "
    "echo 'touch /tmp/evil' >>$name && exit 7; ln -sf /tmp/evil $name && exit 8; done; "
    "rm -f begun; [ -f begun ] || exit 9; ls -a >&2; printf '\\377' >begun"
)


def test_a_program_changes_nothing_that_is_read_outside_its_container(launch):
    """Of its step it sees what it needs, read-only; what it may write to is no text for anybody."""
    program = f"{TAMPER}; echo accuracy: 0.5; exit 3"
    _, err = launch("--nodes=2", "--", "sh", "-c", program, status=1)
    assert "ended with exit status 3" in err


def test_seeds_share_one_job(launch):
    """Several runs are steps of one job, and make one record."""
    out, err = launch("--seeds=3,5", "--", "sh", "-c", "echo accuracy: 0.$SEED")
    assert err.count("is submitted") == 1
    made = launch.record(out)
    assert [(run.seed, run.metrics["accuracy"]) for run in made.runs] == [(3, 0.3), (5, 0.5)]


def test_nothing_is_submitted_by_a_dry_run(launch):
    """The job is printed, with everything quoted and without the values of variables."""
    evil = "$(touch /tmp/evil)'`\"; rm -rf /"
    out, _ = launch(
        *("--dry-run", "--nodes=2", "--gpus=4", "--cpus=8", "--memory=3G", "--time=90m"),
        *("--partition=debug", "--account=me", "-e", "KEY=hidden", "--", "sh", "-c", evil),
    )
    for line in ("--nodes=2", "--gres=gpu:4", "--cpus-per-task=8", "--mem=3072M"):
        assert f"#SBATCH {line}\n" in out
    assert "#SBATCH --time=0-01:30:00\n" in out
    assert shlex.quote(evil) in out
    assert "hidden" not in out
    assert not launch.cluster.jobs()
    assert not Path("/tmp/evil").exists()


def test_ctrl_c_cancels_the_job(launch):
    """Nothing of a job is left after Ctrl-C, whether it waits or runs."""
    process = launch.start("--nodes=2", "--", "sh", "-c", "echo begun; sleep 100")
    _until(process, "begun\n")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "is cancelled" in err
    assert launch.cluster.idle()


def test_ctrl_c_while_the_job_is_submitted_leaves_none(launch, tmp_path):
    """A job whose number was not told yet is found by its name, and ended."""
    program = tmp_path / "bin/sbatch"
    program.parent.mkdir()
    real = shutil.which("sbatch")
    lines = f'{real} "$@" >/dev/null; touch "{tmp_path}/taken"; exec sleep 60'
    program.write_text(f"#!/bin/sh\n{lines}\n")
    program.chmod(0o755)
    launch.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    process = launch.start("--nodes=2")
    end = time.monotonic() + 30
    while not (tmp_path / "taken").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert launch.cluster.jobs()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert launch.cluster.idle()
    assert not list(Path(launch.environment["TORCHSHIP_HOME"]).glob("launch/*"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--nodes=3",), "would wait for ever: Partition"),
        (("--partition=nowhere",), "Slurm refuses the job: Invalid partition name specified"),
        (("--gpus=2",), "Slurm refuses the job: "),
        (("--time=2d",), "would wait for ever: PartitionTimeLimit"),
        (("--memory=900G",), "Slurm refuses the job: "),
    ],
)
def test_a_job_that_slurm_refuses_is_told(launch, arguments, told):
    """One clear line, and no job."""
    _, err = launch(*arguments, status=1)
    assert told in err


def test_a_worker_that_dies_fails_the_run_at_once(launch):
    """The others are ended; the log is there, and the node is named."""
    began = time.monotonic()
    program = "echo alive; if [ $PET_NODE_RANK = 1 ]; then exit 9; fi; sleep 100"
    _, err = launch("--nodes=2", "--", "sh", "-c", program, status=1)
    assert time.monotonic() - began < 30
    assert f"{slurm.NODES[1]}: task 1: Exited with exit code 9" in err
    assert "ended with exit status 9" in err


@pytest.mark.skipif(
    not slurm.GROUPS and os.environ.get("TORCHSHIP_REQUIRE_ENGINES") != "1",
    reason="needs control groups, which limit memory",
)
def test_too_much_memory_ends_the_job(launch):
    """A program that is killed for want of memory is told so."""
    program = "dd if=/dev/zero of=/dev/null bs=300M count=100"
    _, err = launch("--memory=60M", "--", "sh", "-c", program, status=1)
    assert "needed more memory than it had" in err


@pytest.mark.slow  # Slurm looks at its limits twice a minute
def test_the_time_limit_ends_the_job(launch):
    """A job that takes too long is told so, with what it had printed."""
    process = launch.start("--time=1m", "--", "sh", "-c", "echo begun; sleep 100")
    _until(process, "begun\n")
    (job,) = launch.cluster.jobs().splitlines()
    launch.cluster.ask("scontrol", "update", f"JobId={job.split()[0]}", "EndTime=now+1seconds")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "it took longer than its time limit" in err
    assert launch.cluster.idle()


def test_ctrl_c_takes_a_job_out_of_the_queue(launch):
    """A job that waits is told why, and is gone after Ctrl-C."""
    other = launch.cluster.ask(
        *("sbatch", "--parsable", "--nodes=2", "--mem=2500", "--output=/dev/null"),
        "--wrap=sleep 100",
    ).strip()
    process = launch.start("--nodes=2", "--memory=2500M")
    _until(process, "job ", "waits in the queue: ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert [line.split()[0] for line in launch.cluster.jobs().splitlines()] == [other]
    launch.cluster.ask("scancel", other)
    assert launch.cluster.idle()


def test_a_node_without_nvidias_driver_is_told(launch):
    """GPUs are asked of Slurm, and the node is asked what it has of the driver."""
    _, err = launch("--gpus=1", status=1)
    assert "runs on" in err
    assert "the first node has no device /dev/nvidia0" in err


@pytest.mark.parametrize("place", [0, 1])
def test_a_node_without_the_image_is_named(launch, place):
    """What a node does not see is told, with the path: the first node, and another one."""
    home = launch.cluster.unseen / slurm.NODES[place] / "home"
    launch.environment["TORCHSHIP_HOME"] = str(home)
    _, err = launch("--nodes=2", status=1)
    assert f"does not see {home}" in err
    assert "TORCHSHIP_HOME" in err
    if place:
        assert f"node {slurm.NODES[1]} does not see" in err
    assert not list((home / "launch").iterdir())


def test_nodes_run_the_image_by_docker(launch, dockerd, tmp_path):
    """Where a site has Docker, the nodes pull the image from the registry; Ctrl-C ends it there."""
    home = tmp_path / "home"
    launch.environment["HOME"] = str(home)
    here = {**os.environ, "HOME": str(home)}
    here.pop("DOCKER_CONFIG", None)
    words = ("docker", "context", "create", "tests", f"--docker=host=unix://{dockerd.socket}")
    subprocess.run(words, env=here, check=True, capture_output=True)
    subprocess.run(("docker", "context", "use", "tests"), env=here, check=True, capture_output=True)
    program = 'echo "accuracy: 0.$SEED"; echo "$PET_NODE_RANK $OURS" >/output/$PET_NODE_RANK'
    program = f"{TAMPER}; {program}"
    options = ("--with=docker", "--nodes=2", "--memory=500M", "--cpus=1", "-e", "OURS=it's")
    out, err = launch(*options, "--", "sh", "-c", program)
    assert err.count("rank=") == 2
    (run,) = launch.record(out).runs
    assert set(run.outputs) == {"0", "1"}
    outputs = launch.folder / Path(out.strip()).parent / "seed-1/output"
    assert (outputs / "1").read_text() == "1 it's\n"
    assert (outputs / "1").stat().st_uid == os.getuid()
    process = launch.start("--with=docker", "--", "sh", "-c", "echo begun; sleep 100")
    _until(process, "begun\n")
    (folder,) = Path(launch.environment["TORCHSHIP_HOME"]).glob("launch/job-*")
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # of a process that has just ended
            if re.search(rf"bash\0{folder}/step-[0-9]+/node\0$", words.read_text()):
                os.killpg(int(words.parent.name), signal.SIGKILL)  # as Slurm does
    try:
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 1, err
    assert not dockerd.docker("ps", "--quiet", "--filter=name=torchship-")
    process = launch.start("--with=docker", "--", "sh", "-c", "echo begun; sleep 100")
    _until(process, "begun\n")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert launch.cluster.idle()
    assert not dockerd.docker("ps", "--quiet", "--filter=name=torchship-")


def _until(process: subprocess.Popen[str], *parts: str) -> None:
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if all(part in line for part in parts):
            return
    pytest.fail("".join(told))


def test_without_slurm_it_is_told(launch):
    """A machine without sbatch gets one clear line."""
    launch.environment["PATH"] = "/nowhere"
    _, err = launch("--with=oci", status=1)
    assert "sbatch is not installed" in err


MEETING = """
import os, torch.distributed as dist
dist.init_process_group("gloo")
attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
if dist.get_rank() == 1 and attempt == "0":
    os._exit(9)
dist.barrier()
print("met at attempt", attempt, flush=True)
"""


@pytest.fixture
def training(tmp_path, cluster, shared_registry) -> Launcher:
    """Give what launches `examples/mnist-fast`, built and pushed."""
    if not os.environ.get("TORCHSHIP_MIRRORS"):
        pytest.skip("MNIST's files are not at hand: TORCHSHIP_MIRRORS names no folder of them")
    project = tmp_path / "project"
    shutil.copytree(EXAMPLE, project)
    reference = f"{shared_registry.host}/me/mnist-fast:v1"
    found = Launcher(tmp_path, cluster, reference)
    found.patience = 600.0
    found.tell("build", str(project), "-t", reference, "--push")
    return found


@pytest.mark.slow
@pytest.mark.network
def test_training_on_two_nodes_is_the_same_experiment(training, tmp_path):
    """Same global batch, same accuracy within the tolerance; the record is published.

    And a process that dies is started anew where that is asked for.
    """
    short = ("--", "python", "main.py", "--limit", "2560", "--epochs", "1", "--no-accel")
    one = ("--engine=native", "--seeds=1,2,3", "--no-repeat", "-o", "one")
    training.tell("record", training.reference, *one, *short)
    port = f"--port={free_port()}"
    training("--nodes=2", "--memory=2500M", port, "--seeds=1,2,3", "-o", "two", *short)
    verdict = training.tell("compare", "one", "two")
    assert "test_accuracy: WITHIN TOLERANCE" in verdict
    record = read(tmp_path / "two").record
    assert record.engine == "slurm, 2 nodes of 1 process"
    assert record.hardware is not None
    assert len(record.data) == 4
    training.tell("publish", training.reference, "two")
    training.environment["TORCHSHIP_HOME"] = str(tmp_path / "reader")
    assert "3 runs" in training.tell("inspect", training.reference)
    training.environment["TORCHSHIP_HOME"] = str(training.cluster.folder / "home")
    options = ("--nodes=2", "--memory=1500M", f"--port={free_port()}", "--max-restarts=1")
    _, err = training(*options, "--", "python", "-c", MEETING)
    assert err.count("met at attempt 1") == 2
