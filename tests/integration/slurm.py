"""A real Slurm for tests: its own munge, controller and two nodes, all on this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.registry import free_port, require

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "crun")
_PREFIX = f"t{os.getpid()}n"
"""Of the nodes' names: clusters of several test processes share the kernel's control groups."""

NODES = (f"{_PREFIX}1", f"{_PREFIX}2")
BOTH = f"{_PREFIX}[1-2]"
"""The nodes as Slurm names them together."""

_START = 30.0  # seconds
_V1 = Path("/sys/fs/cgroup")
GROUPS = all(os.access(_V1 / kind, os.W_OK) for kind in ("freezer", "memory", "cpuset"))
"""Whether Slurm gets control groups of the first version, to end steps and to limit memory."""
_WHOLLY_KILLED = "" if GROUPS else "unshare --pid --fork --kill-child --mount-proc "
"""What control groups do otherwise: a step that is killed leaves nothing."""
_MEMORY = 3000  # MB that each node says it has


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running Slurm. ``environment`` makes its commands speak to it."""

    folder: Path
    environment: dict[str, str]

    @property
    def unseen(self) -> Path:
        """A folder with one for each node, by its name, which that node does not see into."""
        return self.folder / "unseen"

    def ask(self, *command: str) -> str:
        """Run one of Slurm's commands and return what it prints."""
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def jobs(self) -> str:
        """Return the jobs that wait or run, one a line."""
        return self.ask("squeue", "--noheader", "--format=%i %T %r")

    def idle(self, patience: float = 15) -> bool:
        """Wait until there is no job, not even one that is ending."""
        end = time.monotonic() + patience
        while self.jobs():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Start a cluster of two nodes in a folder that all its users may enter, and stop it."""
    if os.geteuid() != 0:
        pytest.skip("nodes of Slurm's are told apart by mounts, which needs root")
    for program in PROGRAMS:
        require(program)
    with ExitStack() as stack:
        munge = _munge(folder / "munge", stack)
        configuration = _configure(folder, munge)
        environment = {"SLURM_CONF": str(configuration)}
        cluster = Cluster(folder=folder, environment=environment)
        for name in NODES:
            (cluster.unseen / name).mkdir(parents=True)
        _daemon(stack, folder / "slurmctld.out", "slurmctld", "-D", "-f", str(configuration))
        for name in NODES:
            words = ("slurmd", "-D", "-N", name, "-f", str(configuration))
            _daemon(stack, folder / f"{name}.out", *_apart(cluster.unseen / name), *words)
        _until_idle(cluster)
        yield cluster
        for line in cluster.jobs().splitlines():
            cluster.ask("scancel", line.split()[0])
        cluster.idle()
    for name in NODES:
        for group in _V1.glob(f"*/slurm_{name}") if GROUPS else ():
            for below in (*sorted(group.glob("**/"), reverse=True), group):
                with suppress(OSError):
                    below.rmdir()


def _munge(folder: Path, stack: ExitStack) -> Path:
    folder.mkdir(parents=True, mode=0o755)
    key, address = folder / "key", folder / "socket"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    _daemon(
        stack,
        folder / "out",
        *("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={address}"),
        *(f"--pid-file={folder}/pid", f"--log-file={folder}/log", f"--seed-file={folder}/seed"),
        "--num-threads=2",
    )
    end = time.monotonic() + _START
    while not address.is_socket():
        assert time.monotonic() < end, (folder / "out").read_text()
        time.sleep(0.05)
    return address


def _configure(folder: Path, munge: Path) -> Path:
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    nodes = [
        f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 "
        f"Port={free_port()} CPUs=2 RealMemory={_MEMORY} Gres=gpu:1 State=UNKNOWN"
        for name in NODES
    ]
    for name in ("state", *NODES):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(
        "\n".join(
            (
                "ClusterName=test",
                f"SlurmctldHost={socket.gethostname()}(127.0.0.1)",
                f"SlurmctldPort={free_port()}",
                f"SlurmUser={user}",
                f"SlurmdUser={user}",
                "AuthType=auth/munge",
                f"AuthInfo=socket={munge}",
                f"StateSaveLocation={folder}/state",
                f"SlurmdSpoolDir={folder}/%n",
                f"SlurmctldPidFile={folder}/slurmctld.pid",
                f"SlurmdPidFile={folder}/%n.pid",
                *(("ProctrackType=proctrack/cgroup", "TaskPlugin=task/cgroup") if GROUPS else ()),
                *(() if GROUPS else ("ProctrackType=proctrack/pgid", "TaskPlugin=task/none")),
                "MpiDefault=none",
                "GresTypes=gpu",
                "SelectType=select/cons_tres",
                "SelectTypeParameters=CR_CPU_Memory",
                "DefMemPerNode=1000",
                "SchedulerParameters=bf_interval=1,sched_min_interval=10000,defer_batch",
                "KillWait=2",
                "InactiveLimit=0",
                "ReturnToService=2",
                "SlurmdParameters=config_overrides",
                *nodes,
                f"PartitionName=debug Nodes={','.join(NODES)} Default=YES MaxTime=60",
                "",
            )
        )
    )
    # a GPU as far as Slurm can see, of no maker's
    (folder / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
    (folder / "cgroup.conf").write_text(
        f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={_V1}\nCgroupAutomount=no\n"
        "ConstrainRAMSpace=yes\nConstrainSwapSpace=yes\n"
    )
    # What Slurm's own guide gives for crun; without control groups, for a machine may have none
    crun = f"crun --rootless=true --cgroup-manager=disabled --root={folder}/crun"
    name = "%n.%u.%j.%s.%t"
    (folder / "oci.conf").write_text(
        "\n".join(
            (
                f'RunTimeQuery="{crun} state {name}"',
                f'RunTimeKill="{crun} kill {name} KILL"',
                f'RunTimeDelete="{crun} delete --force {name}"',
                f'RunTimeRun="{_WHOLLY_KILLED}{crun} run --bundle %b {name}"',
                "",
            )
        )
    )
    (folder / "crun").mkdir()
    (folder / "crun").chmod(0o1777)  # nodes run containers as the job's user
    return configuration


def _apart(unseen: Path) -> tuple[str, ...]:
    """Return what starts a program on a machine that has no folder, as another machine may.

    Nor has it the second of two versions of control groups, which crun refuses together.
    """
    hide = f"mount -t tmpfs none '{unseen}' && chmod 0 '{unseen}'"
    if Path("/sys/fs/cgroup/unified").is_dir():
        hide += " && umount /sys/fs/cgroup/unified"
    script = f'{hide} && exec "$@"'
    return ("unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh")


def _until_idle(cluster: Cluster) -> None:
    end = time.monotonic() + _START
    while True:
        try:
            states = cluster.ask("sinfo", "--noheader", "--Node", "--format=%T").split()
        except subprocess.CalledProcessError as error:
            states = [error.stderr]
        if states == ["idle"] * len(NODES):
            return
        assert time.monotonic() < end, (states, _told(cluster.folder))
        time.sleep(0.1)


def _told(folder: Path) -> str:
    return "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.out")))


def _daemon(stack: ExitStack, log: Path, program: str, *arguments: str) -> None:
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found is not None
    with log.open("wb") as out:
        process = subprocess.Popen(
            (found, *arguments), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    stack.callback(_stop, process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
