"""A job followed from its creation to its end: what becomes of it, what it prints and leaves."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from torchship.amounts import listed
from torchship.engines.relay import write_all
from torchship.errors import EngineError, RunError
from torchship.launch.job import Job
from torchship.launch.kubernetes import output, pod, state, trouble
from torchship.launch.kubernetes.kubectl import Kubectl, Refused, refusal
from torchship.launch.kubernetes.log import Log
from torchship.launch.kubernetes.pulls import Pulls
from torchship.launch.kubernetes.state import Look, Pod
from torchship.progress import Progress

_SOON, _LATER = 1.0, 3.0
"""Seconds between looks at a job: until its program runs, and then."""

_UNHEARD = 15
"""Seconds without a pod after which the cluster is asked for the events of the job."""

_LAST = 120
"""Seconds to wait, once the nodes have ended, for the job to end and its log to be read; as many
after the end of node 0, the nodes still at work are named."""

_PATIENCE = 300
"""Seconds without an answer of the cluster after which a job is given up, and a long training
with it: networks fail for minutes, and API servers are replaced."""

_TAIL = 40  # lines of a failed pod that was not followed


class Following:
    """One job of the cluster, by its name there.

    ``kinds`` are what it consists of, as ``kubectl get`` takes them; ``container`` is the one
    that runs the program. ``output`` is an empty folder that gets the output of the first node;
    ``sinks`` are descriptors that get what it prints.
    """

    def __init__(
        self,
        kubectl: Kubectl,
        job: Job,
        name: str,
        *,
        kinds: str,
        container: str,
        output: Path | None,
        sinks: tuple[int, ...],
        progress: Progress,
    ) -> None:
        self._kubectl = kubectl
        self._job = job
        self._name = name
        self._kinds = kinds
        self._container = container
        self._output = output
        self._sinks = sinks
        self._progress = progress
        self._said: set[str] = set()
        self._pulls = Pulls(job)
        self._log: Log | None = None
        self._fetched = False
        self._heard = time.monotonic()
        self._failing_since: float | None = None

    def to_the_end(self) -> int:
        """Return the exit status; raise what `Kubernetes.run` does."""
        try:
            while True:
                look = self._look()
                if look.finished:
                    return self._finished(look)
                self._tell(look)
                self._follow(look)
                if self._log is not None and self._log.ended is not None:
                    return self._ended(look)
        finally:
            if self._log is not None:
                self._log.close()

    def _look(self) -> Look:
        while True:
            try:
                listing = self._kubectl.get(self._kinds, f"--selector={pod.LABEL}={self._name}")
                break
            except EngineError as error:
                self._bear(error)
        self._failing_since = None
        look = state.read(listing, self._name, self._container)
        if not look.present:
            raise EngineError(f"somebody else deleted the job {self._name} from the cluster")
        return look

    def _bear(self, error: EngineError) -> None:
        """Wait where the cluster may soon answer again; raise the error where it will not."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        final = isinstance(error, Refused) and error.final
        if final or now - self._failing_since > _PATIENCE:
            raise error
        self._say(f"{error.message}; trying again")
        time.sleep(_LATER)

    def _tell(self, look: Look) -> None:
        if error := self._pulls.failed(look, time.monotonic()) or trouble.waiting(look):
            raise error
        if self._pulls.faltering is not None:
            self._say(self._pulls.faltering)
        if found := trouble.unscheduled(look):
            self._say(found)
        if not look.pods and time.monotonic() - self._heard > _UNHEARD:
            self._tell_events()

    def _tell_events(self) -> None:
        """Say why a job has no pods: that is told as an event alone."""
        self._heard = time.monotonic()
        selector = f"--field-selector=involvedObject.name={self._name},type=Warning"
        events: object = []
        with suppress(Refused):  # not everybody may read them
            events = self._kubectl.get("events", selector).get("items", [])
        for event in events[-1:] if isinstance(events, list) else ():
            message = " ".join(str(event.get("message", "")).split())
            if "violates PodSecurity" in message:
                raise EngineError(f"the cluster does not allow the job's pods: {message}")
            self._say(f"the job has no pods yet: {message}")

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._progress.say(line)

    def _follow(self, look: Look) -> None:
        """Pass on what the first node prints, until it is time for another look."""
        head = look.head
        if head is None or not head.begun:
            time.sleep(_SOON)
            return
        if self._log is None:
            self._log = self._log_of(head)
            if self._job.output is not None:
                self._say(f"node 0 runs in the pod {head.name}")
        if not self._log.copy(_LATER) or head.terminated is not None:
            return
        if self._log.complaint:
            self._bear(refusal(self._log.complaint, ("logs",)))
        time.sleep(_SOON)

    def _log_of(self, node: Pod) -> Log:
        return Log(self._kubectl, node.name, self._container, self._name, self._sinks)

    def _ended(self, look: Look) -> int:
        """Fetch the output of a program that has ended, and see the job to its end."""
        assert self._log is not None
        assert self._log.ended is not None
        assert look.head is not None
        status = self._log.ended.status
        if self._job.output is not None and self._output is not None:
            try:
                self._fetch(look.head, self._log.ended.pid, self._job.output, self._output)
            except EngineError as error:
                look = self._look()
                if look.failed is None:
                    raise
                # Another node's end has ended this one, and that is the news
                self._say(f"the outputs of node 0 are lost: {error.message}")
                return self._finished(look)
        return self._last(look, status)

    def _last(self, look: Look, status: int) -> int:
        """See the job to its end when its first node has ended, however long others work."""
        told = until = time.monotonic() + _LAST
        while (now := time.monotonic()) < until:
            look = self._look()
            if look.finished:
                return self._finished(look) or status
            if working := [node.index for node in look.pods if node.working and node.index]:
                until = now + _LAST
                if now > told:
                    self._say(f"node 0 has ended; waiting for {listed('node', working)}")
            time.sleep(_SOON)
        return status

    def _fetch(self, head: Pod, pid: int, source: str, into: Path) -> None:
        task = self._progress.task("fetching the outputs")
        size = output.fetch(
            self._kubectl,
            pod=head.name,
            container=self._container,
            pid=pid,
            source=source,
            output=into,
        )
        self._fetched = True
        task.advance(size)
        task.finish()

    def _finished(self, look: Look) -> int:
        head = look.head
        if self._log is None and head is not None and head.begun:
            self._log = self._log_of(head)
        if self._log is not None and self._log.ended is None:
            self._read_the_rest(self._log)
            if self._log.ended is not None and head is not None:
                self._fetch_the_last(head, self._log.ended.pid)
        if look.complete and self._output is not None and not self._fetched:
            raise RunError(
                f"the job has ended, and its outputs were not fetched in the {pod.HOLD} s for "
                "which they are kept",
                hint="keep torchship running; with --output-claim NAME they stay in the cluster",
            )
        if look.complete:
            return 0
        if error := trouble.failure(look, self._job, began=self._log is not None):
            raise error
        culprit = look.culprit
        if culprit is None:
            return 1
        status = trouble.exit_status(culprit)
        if culprit.index != 0:
            self._say(f"node {culprit.index} ended with exit status {status}; it printed last:")
            for sink in self._sinks:
                write_all(sink, self._tail(culprit))
        return status

    def _read_the_rest(self, log: Log) -> None:
        """Pass on what is left of the first node's log: nothing writes to it any more.

        Of an answer, a part would be another answer: there an error is raised.
        """
        until = time.monotonic() + _LAST
        try:
            while log.ended is None and time.monotonic() < until:
                if log.copy(_LATER):
                    if not log.complaint:
                        return
                    self._bear(refusal(log.complaint, ("logs",)))
        except EngineError as error:
            if self._output is None:
                raise
            self._say(f"the log of node 0 is cut short: {error.message}")

    def _fetch_the_last(self, head: Pod, pid: int) -> None:
        """Try to get the output of a program whose job another node's end has ended."""
        if self._job.output is None or self._output is None:
            return
        try:
            self._fetch(head, pid, self._job.output, self._output)
        except EngineError as error:
            self._say(f"the outputs of node 0 are lost: {error.message}")

    def _tail(self, node: Pod) -> bytes:
        arguments = (f"--container={self._container}", f"--tail={_TAIL}", f"pod/{node.name}")
        try:
            return self._kubectl.tell("logs", *arguments).encode()
        except EngineError as error:
            return f"(its log is gone: {error.message})\n".encode()
