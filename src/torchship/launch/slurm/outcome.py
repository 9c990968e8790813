"""Why a step failed: told from what Slurm, the container's runtime and torchrun printed."""

from __future__ import annotations

import re

from torchship.engines.client import last_words
from torchship.errors import EngineError
from torchship.launch.slurm import queue
from torchship.launch.slurm.containers import Step
from torchship.progress import Progress

_MEMORY = re.compile(r"oom.?kill|out.?of.?memory handler|[Ee]xceeded (job|step) memory limit")
_PORT = re.compile(r"EADDRINUSE|[Aa]ddress already in use")
_UNSEEN = re.compile(r"^\S+ does not see /.*$", re.M)
_ENDED = re.compile(r"^srun: error: (\S+: tasks? .*)$", re.M)


def failed(step: Step, errors: bytes, *, number: str, progress: Progress) -> None:
    """Tell why a step failed that ran; raise `EngineError` for one that did not.

    ``errors`` is the end of what came on standard error.
    """
    folder = step.folder
    said = (folder / "srun.log").read_text(errors="replace")
    told = errors.decode(errors="replace")
    unseen = _UNSEEN.search(said)
    if unseen is not None and not any(folder.glob("begun-*")):
        raise EngineError(
            f"node {unseen[0]}",
            hint="name folders that all nodes share: TORCHSHIP_HOME for the image, and -o for "
            "the outputs; or let the nodes pull the image, --with apptainer|podman|docker",
        )
    if (folder / "unfetched").exists():
        raise EngineError(
            f"a node has no way to the image {step.job.reference}: {_last(said)}",
            hint="look whether the nodes reach the registry, and are logged in there",
        )
    if _MEMORY.search(said) or _MEMORY.search(told):
        raise queue.out_of_memory(number)
    if not any(folder.glob("begun-*")):
        raise EngineError(
            f"the nodes could not start the container: {_last(told) or _last(said)}",
            hint="try another way: --with apptainer|podman|docker",
        )
    if step.output is None:
        return  # a question that the image has no answer to
    if _PORT.search(told):
        progress.say(
            f"port {step.job.shape.port} is taken on the first node: name another with --port"
        )
    for line in _ENDED.findall(said):
        progress.say(line)


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("srun: ")]
    return last_words("\n".join(lines) or text)
