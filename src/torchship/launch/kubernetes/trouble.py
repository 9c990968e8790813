"""What is wrong with a job, in one sentence, and what to do about it."""

from __future__ import annotations

from torchship.errors import EngineError, RunError, TorchshipError
from torchship.launch.job import Job
from torchship.launch.kubernetes.pod import quantity
from torchship.launch.kubernetes.state import Look, Pod, Reason

_START = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_NEVER_BEGAN = {"StartError", "ContainerCannotRun"}
_LONGEST = 400  # characters of what a cluster says


def waiting(look: Look) -> TorchshipError | None:
    """Return what keeps a pod whose image is there from ever beginning, if anything does."""
    for pod in look.pods:
        if pod.waiting is not None and pod.waiting.reason in _START:
            return EngineError(f"node {pod.index} cannot start the container: {words(pod.waiting)}")
        ended = pod.terminated
        if ended is not None and ended.reason in _NEVER_BEGAN:
            return NotBegun(
                f"node {pod.index} cannot start the program: {words(ended)}",
                hint="the image needs python3 on its PATH",
            )
    return None


class NotBegun(EngineError):
    """The image has no such program: its other programs may well be there."""


def unscheduled(look: Look) -> str | None:
    """Say why pods wait for machines; the cluster may still find or make some."""
    found = [pod.unscheduled for pod in look.pods if pod.unscheduled is not None]
    if not found:
        return None
    return f"the cluster has no room for the job yet: {words(found[0])}"


def failure(look: Look, job: Job, began: bool) -> TorchshipError | None:
    """Return what ended a job, where it was not its program; None where the program did.

    ``began`` tells whether the program was ever seen running.
    """
    failed = look.failed
    if failed is not None and failed.reason == "DeadlineExceeded":
        limit = f"{job.shape.time_limit} s" if job.shape.time_limit else "its deadline"
        if not began:
            why = unscheduled(look)
            return EngineError(
                f"the job did not begin within its time limit of {limit}"
                + (f": {why}" if why else ""),
                hint="ask for less, or give it more --time",
            )
        return RunError(
            f"the job was ended at its time limit of {limit}", hint="give it more with --time"
        )
    culprit = look.culprit
    if culprit is None:
        if failed is not None and look.head is None:
            return EngineError(f"the cluster could not run the job: {words(failed)}")
        return None
    ended = culprit.terminated
    if ended is not None and ended.reason == "OOMKilled":
        had = f" than its {quantity(job.shape.memory)}" if job.shape.memory else ""
        return RunError(
            f"node {culprit.index} was killed: out of memory, it needed more{had}",
            hint="give each node more with --memory, or use a smaller batch",
        )
    if culprit.evicted is not None:
        return RunError(
            f"the cluster took node {culprit.index} away: {words(culprit.evicted)}",
            hint="see --memory and --shared-memory, or try again",
        )
    return None


def exit_status(pod: Pod) -> int:
    """Return a failed pod's exit status, never 0."""
    return (pod.terminated.exit_code if pod.terminated is not None else 0) or 1


def words(reason: Reason) -> str:
    """Return what a cluster says of something, on one line and not too long."""
    told = " ".join(reason.message.split()) or reason.reason
    if reason.reason and reason.reason not in told and reason.message:
        told = f"{reason.reason}: {told}"
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}..."
