"""What runs containers on the nodes of a site: each one's command line, as lines of bash.

Source: ``srun(1)`` ``--container`` and ``--multi-prog``; the manual pages of docker-run,
podman-run and apptainer-exec. Every one of them gets the same: what is `INSIDE` the step's folder
at `MOUNTED`, the output directory, the network of the node, and ``start`` as what it runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from torchship.launch.job import Job
from torchship.launch.slurm.bundle import Bind

INSIDE = "inside"
"""What containers see of a step's folder. The rest is read by the nodes, or from here, and no
program may write there."""

MOUNTED = "/run/torchship"
"""Where a container has it."""

START = "start"
BEGUN = "begun"
"""The one file that containers write to: each says that it was started."""

_GPUS = "${SLURM_STEP_GPUS:-${SLURM_JOB_GPUS:-all}}"
"""The numbers that a job's GPUs have on their node. Those of CUDA_VISIBLE_DEVICES may be counted
within the job's control group, which docker's and podman's containers are not in (srun(1))."""


class Step(Struct, frozen=True, kw_only=True):
    """One container on each node of a job. ``folder`` and ``output`` are seen by all nodes."""

    job: Job
    folder: Path
    output: Path | None


def program(step: Step, runtime: str) -> tuple[str, ...]:
    """Return the words that follow srun's own options; the files that they name are `files`."""
    if runtime == "oci":
        # The one way to tell a container of Slurm's which node it is on: its environment is the
        # step's, the same for all
        return (f"--container={step.folder / 'bundle'}", "--multi-prog", "programs")
    return ("bash", str(step.folder / "node"))


def files(step: Step, runtime: str) -> dict[str, str]:
    """Return what a step's folder needs besides ``start``: names and texts."""
    if runtime == "oci":
        last = step.job.shape.nodes - 1
        return {"programs": f"0-{last} /bin/sh {MOUNTED}/{START} %t\n"}
    lines = {"docker": _docker, "podman": _podman, "apptainer": _apptainer}[runtime](step)
    return {"node": "\n".join(("#!/bin/bash", *lines, ""))}


def fetching(job: Job, runtime: str) -> str | None:
    """Return the line that brings the image to a node, where that is not done from here."""
    reference = shlex.quote(str(job.reference))
    if runtime in ("docker", "podman"):
        return (
            f"{runtime} image inspect {reference} >/dev/null 2>&1 || "
            f"{runtime} pull --quiet {reference} >/dev/null"
        )
    if runtime == "apptainer":
        # into the user's cache, by one node alone: the others share the home
        return f"apptainer exec docker://{reference} /bin/true"
    return None


def removing(step: Step, runtime: str) -> str | None:
    """Return the line that ends what a step has left on a node; None where Slurm itself does.

    Docker's and podman's containers are no children of the step, and Slurm may kill what is before
    it can say goodbye to them.
    """
    if runtime not in ("docker", "podman"):
        return None
    return (
        f'left=$({runtime} ps --all --quiet --filter="name=^{_name(step)}-"); '
        f'[ -z "$left" ] || {runtime} rm --force $left'
    )


def _name(step: Step) -> str:
    return f"torchship-$SLURM_JOB_ID-{step.folder.name}"


def _docker(step: Step) -> Sequence[str]:
    return _engine(
        step,
        "docker",
        *('--user="$(id -u):$(id -g)"', "--cap-drop=ALL"),
        *([f'--gpus="\\"device={_GPUS}\\""'] if step.job.shape.gpus else []),
    )


def _podman(step: Step) -> Sequence[str]:
    gpus = step.job.shape.gpus
    return (
        "devices=()",
        *(
            (
                f'IFS=, read -ra numbers <<<"{_GPUS}"',
                'for number in "${numbers[@]}"; do',
                '    devices+=(--device="nvidia.com/gpu=$number")',
                "done",
            )
            if gpus
            else ()
        ),
        *_engine(step, "podman", "--user=0:0", '${devices[@]+"${devices[@]}"}'),
    )


def _engine(step: Step, name: str, *own: str) -> Sequence[str]:
    """Return what docker and podman have in common; their containers are no children of Slurm's."""
    shape = step.job.shape
    words = [
        *(f"{name} run --rm --pull=never", '--name="$name"', "--network=host"),
        "--log-driver=none",
        "--security-opt=no-new-privileges --security-opt=label=disable",
        "--entrypoint=/bin/sh",
        *own,
        *(f"--mount={shlex.quote(_mount(bind))}" for bind in binds(step)),
        "--env=SLURM_JOB_ID",
    ]
    if shape.shared_memory is not None:
        words.append(f"--shm-size={shape.shared_memory}")
    if shape.cpus is not None:
        words.append(f"--cpus={shape.cpus}")
    if shape.memory is not None:
        words.append(f"--memory={shape.memory}")
    words += [shlex.quote(str(step.job.reference)), f"{MOUNTED}/{START}", '"$SLURM_NODEID"']
    return (
        f'name="{_name(step)}-$SLURM_NODEID"',
        f"trap '{name} rm --force \"$name\" >/dev/null 2>&1' EXIT",
        "trap 'exit 143' TERM INT",
        f"{' '.join(words)} &",
        'wait "$!"',
    )


def _apptainer(step: Step) -> Sequence[str]:
    words = [
        "exec apptainer exec --containall --no-home --writable-tmpfs",
        *(["--nv"] if step.job.shape.gpus else []),
        *(f"--mount={shlex.quote(_mount(bind))}" for bind in binds(step)),
        f"docker://{shlex.quote(str(step.job.reference))}",
        f'/bin/sh {MOUNTED}/{START} "$SLURM_NODEID"',
    ]
    # --containall gives nothing of the node's environment, except what is named so
    return (
        'export APPTAINERENV_SLURM_JOB_ID="$SLURM_JOB_ID"',
        'export APPTAINERENV_CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES-}"',
        " ".join(words),
    )


def binds(step: Step) -> tuple[Bind, ...]:
    """Return what a container sees of the nodes' file systems, parents first."""
    inside = step.folder / INSIDE
    found = [
        Bind(source=inside, target=MOUNTED, read_only=True),
        # a file that is mounted can be written, and neither removed nor made a symlink
        Bind(source=inside / BEGUN, target=f"{MOUNTED}/{BEGUN}"),
    ]
    if step.output is not None and step.job.output is not None:
        found.append(Bind(source=step.output, target=step.job.output))
    return tuple(found)


def _mount(bind: Bind) -> str:
    """Return a mount as all three read it: fields of CSV, whatever characters the path has."""
    source = str(bind.source).replace('"', '""')
    return f'type=bind,"source={source}",destination={bind.target}' + ",ro" * bind.read_only
