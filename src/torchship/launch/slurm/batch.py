"""The texts of a Slurm job: the script that is submitted, and those of its steps.

Source: ``sbatch(1)``, ``srun(1)``, ``scontrol(1)``. Everything that comes from elsewhere (names,
commands, variables, paths) is quoted by shlex. What may be secret, the variables that the user
set, stands in ``start`` alone: a file of the user's own, never an argument.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from torchship.errors import UsageError
from torchship.launch import torchrun
from torchship.launch.job import OUTPUT_VARIABLE, VARIABLE, Job
from torchship.launch.slurm import containers
from torchship.launch.slurm.containers import BEGUN, INSIDE, START, Step
from torchship.oci.prune import JOB_LEASE, LEASE

BLIND = 72
"""Exit status of a job whose first node does not see the job's folder."""

UNFETCHED = "torchship: no image"
"""The last line of what a step prints whose nodes could not get the image."""

_WORD = re.compile(r"[A-Za-z0-9_.,:@+-]+")
_SILENCE = 120
"""Seconds without a sign of torchship's, between two steps, after which a job ends by itself."""


def script(job: Job, folder: Path, *, partition: str | None, account: str | None) -> str:
    """Return what is submitted: it runs the steps that come into ``folder``.

    Raises `UsageError` for names that would be more than an option of sbatch's.
    """
    shape = job.shape
    for option, value in (("partition", partition), ("account", account)):
        if value is not None and not _WORD.fullmatch(value):
            raise UsageError(f"--{option} {value!r} is no name that Slurm has")
    options = {
        "job-name": job_name(job, folder),
        "nodes": shape.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": shape.cpus,
        "mem": None if shape.memory is None else f"{math.ceil(shape.memory / (1 << 20))}M",
        "gres": f"gpu:{shape.gpus}" if shape.gpus else None,
        "time": None if shape.time_limit is None else _time(shape.time_limit),
        "partition": partition,
        "account": account,
        "output": "/dev/null",
        "chdir": "/",
        "export": "PATH,HOME,USER,LOGNAME",
    }
    given = [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
    return _SCRIPT.format(
        options="\n".join((*given, "#SBATCH --no-requeue")),
        folder=shlex.quote(str(folder)),
        blind=BLIND,
        lease=JOB_LEASE,
        tries=_SILENCE * 5,
    )


def job_name(job: Job, folder: Path) -> str:
    """Return a name of the job that no other one has, as its folder has one."""
    return f"{job.name}-{folder.name.removeprefix('job-')}"


_SCRIPT = """\
#!/bin/bash
{options}

cd {folder} || exit {blind}
# `torchship prune` leaves the folder alone while this runs
exec 9<>{lease} && flock --shared 9

# torchship hands over one step after another: a run, or a question to the image. It writes into
# `order` how many there are, and signs of life: a job that nobody waits for ends by itself.
done=0 silent=0 last=
while [ "$silent" -lt {tries} ]; do
    read -r steps pulse <order
    if [ "$steps" = end ]; then
        exit 0
    elif [ "$done" -lt "$steps" ]; then
        done=$((done + 1)) silent=0
        bash "step-$done/run" >"step-$done/srun.log" 2>&1
        echo "$?" >"step-$done/status"
    elif [ "$pulse" = "$last" ]; then
        silent=$((silent + 1))
        sleep 0.2
    else
        last=$pulse silent=0
    fi
done
"""


def run(step: Step, runtime: str, *, places: tuple[Path, ...], root: Path | None = None) -> str:
    """Return the bash that runs one step; it is refused where a node does not see a place.

    ``root`` is the unpacked image, which `torchship prune` leaves alone until the step has ended,
    whatever becomes of the torchship that began it.
    """
    nodes, cpus = step.job.shape.nodes, step.job.shape.cpus
    srun = f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --mpi=none"
    # sbatch's own is not inherited (Slurm 22.05, "RELEASE NOTES")
    srun += f" --cpus-per-task={cpus}" if cpus else ""
    lines = [f"cd {shlex.quote(str(step.folder))} || exit {BLIND}"]
    if places:
        seen = " ".join(shlex.quote(str(place)) for place in places)
        lines.append(f"{srun} bash -c {shlex.quote(SEE)} see {seen} || exit")
    if root is not None:
        lines.append(f"exec 8<{shlex.quote(str(root.parent / LEASE))} && flock --shared 8 || exit")
    if places and (fetch := containers.fetching(step.job, runtime)) is not None:
        one = "srun --nodes=1 --ntasks=1 --mpi=none" if runtime == "apptainer" else srun
        lines.append(f"{one} bash -c {shlex.quote(fetch)} || {{ echo {UNFETCHED}; exit 1; }}")
    lines += [
        # the name or address by which Slurm itself reaches this node, the first one of the job
        'scontrol show node "$SLURMD_NODENAME" | sed -n "s/.*NodeAddr=\\([^ ]*\\).*/\\1/p"'
        f" >{INSIDE}/head",
        f"{srun} --kill-on-bad-exit=1 \\\n"
        "    --output=stdout --error=stderr --open-mode=append \\\n    "
        + " ".join(shlex.quote(word) for word in containers.program(step, runtime)),
        "status=$?",
    ]
    if (remove := containers.removing(step, runtime)) is not None:
        everywhere = 'srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --mpi=none'
        quoted = shlex.quote(remove)
        lines.append(f'[ "$status" = 0 ] || {everywhere} bash -c {quoted} >/dev/null 2>&1')
    lines += ['exit "$status"', ""]
    return "\n".join(lines)


SEE = (
    'for place; do [ -e "$place" ] && continue; '
    'echo "$SLURMD_NODENAME does not see $place"; exit 1; done'
)
"""Tells which node does not see which place. It is no file: a node may not see that either."""


def asking(question: str, answer: Path) -> str:
    """Return the bash that asks a node itself something; it writes the answer to a file."""
    srun = "exec srun --nodes=1 --ntasks=1 --mpi=none"
    return f"{srun} bash -c {shlex.quote(question)} >{shlex.quote(str(answer))}\n"


def start(job: Job, *, libraries: str | None = None, secret: bool = False) -> str:
    """Return the shell program that a container runs, with the node's place as its argument.

    ``libraries`` is a folder that is searched last. ``secret`` leaves out the values of the
    variables that the user set.
    """
    given = {
        name: "..." if secret and name != OUTPUT_VARIABLE else value
        for name, value in job.environment.items()
    }
    variables = {"PATH": _PATH, "HOME": "/root", **job.image.environment, **given}
    if libraries is not None:
        searched = variables.get("LD_LIBRARY_PATH", "")
        variables["LD_LIBRARY_PATH"] = f"{searched}:{libraries}".lstrip(":")
    lines = [f"export {_named(name)}={shlex.quote(value)}" for name, value in variables.items()]
    if job.shape.started_by_torchrun:
        lines.append(f'export {torchrun.NODE_RANK}="$2"')
        lines.append(f'read -r {torchrun.HEAD} <"${{0%/*}}/head" && export {torchrun.HEAD}')
    return _START.format(
        begun=BEGUN,
        variables="\n".join(lines),
        workdir=shlex.quote(job.image.workdir),
        command=shlex.join(job.command),
    )


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_START = """\
# Nothing of the node's environment reaches the program, but the job's number and its GPUs.
if [ "$1" != clean ]; then
    echo "$1" >>"${{0%/*}}/{begun}"
    exec env -i "SLURM_JOB_ID=$SLURM_JOB_ID" \\
        ${{CUDA_VISIBLE_DEVICES:+"CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES"}} \\
        /bin/sh "$0" clean "$1"
fi
{variables}
cd {workdir} || exit
exec {command}
"""


def _named(name: str) -> str:
    if not VARIABLE.fullmatch(name):
        raise UsageError(f"the image sets {name!r}, which no shell takes for a variable's name")
    return name


def _time(seconds: int) -> str:
    """Write a limit as Slurm takes it, which counts minutes: days-hours:minutes:seconds."""
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 1440}-{minutes // 60 % 24:02}:{minutes % 60:02}:00"


def printed(submitted: str, step: Step, runtime: str) -> str:
    """Return a job as people read it: the script, and the first run's step."""
    parts: Mapping[str, str] = {
        "run": run(step, runtime, places=tuple(p for p in (step.folder, step.output) if p)),
        **containers.files(step, runtime),
        f"{INSIDE}/{START}": start(step.job, secret=True),
    }
    return submitted + "".join(f"\n# --- step-1/{name}\n{text}" for name, text in parts.items())
