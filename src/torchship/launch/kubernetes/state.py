"""What the cluster says of a job: its pods, how they fare, how it ended.

Source: Kubernetes API reference, PodStatus, JobStatus; "Pod Lifecycle". The reasons are those
that the kubelet and the controllers give; of ones that nobody has heard of, the message is told.
"""

from __future__ import annotations

from typing import Any

import msgspec

from torchship.errors import EngineError
from torchship.launch.kubernetes.pod import LABEL

_INDEX = "batch.kubernetes.io/job-completion-index"
_JOBS = ("Job", "TrainJob")


class _Object(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """An object of the API, of which most fields are none of our concern."""


class Reason(_Object, rename="camel", frozen=True, kw_only=True):
    """Why something is as it is: a word for programs, a sentence for people."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class Terminated(Reason, rename="camel", frozen=True, kw_only=True):
    """How a container ended; ``finished_at`` can be compared as text."""

    exit_code: int = 0
    finished_at: str | None = None


class _State(_Object, rename="camel", frozen=True, kw_only=True):
    waiting: Reason | None = None
    running: dict[str, Any] | None = None
    terminated: Terminated | None = None


class _Container(_Object, rename="camel", frozen=True, kw_only=True):
    name: str = ""
    state: _State = msgspec.field(default_factory=_State)


class _Status(_Object, rename="camel", frozen=True, kw_only=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Reason] = msgspec.field(default_factory=list)
    container_statuses: list[_Container] = msgspec.field(default_factory=list)


class _Metadata(_Object, rename="camel", frozen=True, kw_only=True):
    name: str
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class _Item(_Object, rename="camel", frozen=True, kw_only=True):
    kind: str = ""
    metadata: _Metadata
    status: _Status = msgspec.field(default_factory=_Status)


class _List(_Object, rename="camel", frozen=True, kw_only=True):
    items: list[_Item] = msgspec.field(default_factory=list)


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a job. ``waiting`` says why its container has not begun, where that is told."""

    name: str
    index: int
    begun: bool = False
    waiting: Reason | None = None
    unscheduled: Reason | None = None
    terminated: Terminated | None = None
    evicted: Reason | None = None

    @property
    def working(self) -> bool:
        """Tell whether its program runs."""
        return self.begun and self.terminated is None and self.evicted is None

    @property
    def failed(self) -> bool:
        """Tell whether it ended with anything but success."""
        ended = self.terminated
        return self.evicted is not None or (ended is not None and ended.exit_code != 0)


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A job at one moment. ``failed`` says why it has ended without success."""

    present: bool = False
    complete: bool = False
    failed: Reason | None = None
    pods: tuple[Pod, ...] = ()

    @property
    def finished(self) -> bool:
        """Tell whether the cluster is done with it."""
        return self.complete or self.failed is not None

    @property
    def head(self) -> Pod | None:
        """The pod of the first node, whose output is followed."""
        return next((pod for pod in self.pods if pod.index == 0), None)

    @property
    def culprit(self) -> Pod | None:
        """The pod that failed first, where one did."""
        failed = [pod for pod in self.pods if pod.failed]
        return min(failed, key=_when, default=None)


def read(listing: dict[str, Any], name: str, container: str) -> Look:
    """Read what ``kubectl get`` prints of a job and its pods; raise `EngineError`."""
    try:
        items = msgspec.convert(listing, _List, strict=False).items
    except msgspec.ValidationError as error:
        raise EngineError(f"the cluster describes the job in an unknown way: {error}") from None
    mine = [each for each in items if each.metadata.labels.get(LABEL) == name]
    # A Job that belongs to a TrainJob has the labels of its pods at most
    job = next((each for each in mine if each.kind in _JOBS), None)
    conditions = [] if job is None else [one for one in job.status.conditions if _true(one)]
    return Look(
        present=job is not None,
        complete=any(one.type == "Complete" for one in conditions),
        failed=next((one for one in conditions if one.type == "Failed"), None),
        pods=tuple(_pod(each, container) for each in mine if each.kind == "Pod"),
    )


def _pod(item: _Item, container: str) -> Pod:
    states = [one.state for one in item.status.container_statuses if one.name == container]
    state = states[0] if states else _State()
    scheduled = [one for one in item.status.conditions if one.type == "PodScheduled"]
    disrupted = [one for one in item.status.conditions if one.type == "DisruptionTarget"]
    evicted = next((one for one in disrupted if _true(one)), None)
    if evicted is None and item.status.reason:
        evicted = Reason(reason=item.status.reason, message=item.status.message)
    marked = {**item.metadata.labels, **item.metadata.annotations}.get(_INDEX, "")
    return Pod(
        name=item.metadata.name,
        index=int(marked) if marked.isdecimal() else 0,
        begun=state.running is not None or state.terminated is not None,
        waiting=state.waiting,
        unscheduled=next((one for one in scheduled if one.status == "False"), None),
        terminated=state.terminated,
        evicted=evicted,
    )


def _true(one: Reason) -> bool:
    return one.status == "True"


def _when(pod: Pod) -> tuple[str, int]:
    finished = pod.terminated.finished_at if pod.terminated is not None else None
    return finished or "9", pod.index
