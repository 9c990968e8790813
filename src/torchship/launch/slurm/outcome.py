"""Why a step failed: told from what Slurm, the container's runtime and torchrun printed."""

from __future__ import annotations

import re

from torchship.engines.client import last_words
from torchship.errors import EngineError
from torchship.launch.slurm import queue
from torchship.launch.slurm.batch import UNFETCHED
from torchship.launch.slurm.containers import BEGUN, INSIDE, Step
from torchship.progress import Progress

_MEMORY = re.compile(
    r"^(?:slurmstepd\S*|srun): error: .*(?:oom.?kill|OOM Killed|Out Of Memory|memory limit)", re.M
)
_UNSEEN = re.compile(r"^\S+ does not see /.*$", re.M)
_FIRST = re.compile(r"^srun: error: \S+: tasks? .*: Exited with exit code ([0-9]+)$", re.M)
_NODE = re.compile(r"^srun: error: ([^\s:]+): tasks? ", re.M)
_ENDED = re.compile(r"^srun: error: (\S+: tasks? .*)$", re.M)


def failed(step: Step, status: int, errors: bytes, *, number: str, progress: Progress) -> int:
    """Tell why a step failed that ran, and return the status of the process that failed first.

    ``status`` is srun's, the highest of all: those that it ended for the first one's sake count
    there as well. ``errors`` is the end of what came on standard error. Raises `EngineError` for
    a step that did not run.
    """
    folder = step.folder
    said = (folder / "srun.log").read_text(errors="replace")
    with (folder / INSIDE / BEGUN).open("rb") as file:
        begun = file.read(1)  # the rest may be anything, and of any size
    told = errors.decode(errors="replace")
    unseen = _UNSEEN.search(said)
    if unseen is not None and not begun:
        raise EngineError(
            f"node {unseen[0]}",
            hint="name folders that all nodes share: TORCHSHIP_HOME for the image, and -o for "
            "the outputs; or let the nodes pull the image, --with apptainer|podman|docker",
        )
    if said.rstrip().endswith(UNFETCHED):
        why = _last(said.replace(UNFETCHED, ""))
        raise EngineError(
            f"a node has no way to the image {step.job.reference}: {why}",
            hint="look whether the nodes reach the registry, and are logged in there",
        )
    if _MEMORY.search(said) or _MEMORY.search(told):
        raise queue.out_of_memory(number)
    if not begun:
        nodes = ", ".join(dict.fromkeys(_NODE.findall(said))) or "the nodes"
        raise EngineError(
            f"{nodes} could not start the container: {_last(told) or _last(said)}",
            hint="the image must have /bin/sh; if it has, try --with apptainer|podman|docker",
        )
    if step.output is None:
        return status  # a question that the image has no answer to
    port = step.job.shape.port
    if re.search(rf"\bport: {port},.*EADDRINUSE", told):  # torch's DistNetworkError
        progress.say(f"port {port} is taken on the first node: name another with --port")
    for line in _ENDED.findall(said):
        progress.say(line)
    first = _FIRST.search(said)
    return int(first[1]) if first is not None else status


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("srun: ")]
    return last_words("\n".join(lines) or text)
