"""A job that is held: submitted once, watched, and given one step after another.

Its folder is on a file system that this machine and the nodes share. On NFS a file that is
opened shows what the server has, while the absence of a file is remembered for a while: so
every file that either side waits for is there from the start, and grows.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

from torchship.errors import EngineError
from torchship.launch.slurm import batch, queue
from torchship.oci.prune import JOB_LEASE
from torchship.progress import Progress

_ASK = 1.0, 15.0
"""Seconds between two questions to the controller, which serves everybody: at first, and later."""

_PULSE = 10.0
"""Seconds between two signs of life."""

_LATE = 10.0
"""Seconds until what a node wrote last is seen here, for a job that is over."""

_COMING = 3.0
"""Seconds until a job is listed that the controller was asked for."""

_LONGEST_STATUS = 8  # bytes

_LEAVE = 20.0
"""Seconds that a job may take to end by itself, before it is cancelled; and then to be gone."""


class Held:
    """One job, under a name that no other one has. Not for several threads."""

    def __init__(
        self, name: str, folder: Path, *, time_limit: int | None, progress: Progress
    ) -> None:
        self.number = ""
        self.steps = 0
        self._name = name
        self._asked = False
        self._folder = folder
        self._lease = (folder / JOB_LEASE).open("w+b")
        fcntl.flock(self._lease, fcntl.LOCK_SH)
        self._time_limit = time_limit
        self._progress = progress
        self._ready = 0
        self._told: tuple[str, str] | None = None
        self._runs = False
        self._next = 0.0
        self._every = _ASK[0]
        self._orders = threading.Lock()
        self._over = threading.Event()
        self._pulse = threading.Thread(target=self._live, name="pulse", daemon=True)

    def submit(self, script: str) -> None:
        """Submit the job; raise `EngineError` where Slurm does not take it.

        However it goes, `cancel` is to be called in the end.
        """
        (self._folder / "order").write_text("0 0\n")
        (self._folder / "job").write_text(script)
        self._asked = True
        try:
            self.number = queue.submit(script)
        except queue.Refused:
            self._asked = False
            raise
        self._pulse.start()
        self._progress.say(f"job {self.number} is submitted")

    @property
    def _step(self) -> Path:
        return self._folder / f"step-{self.steps}"

    def next_step(self) -> Path:
        """Make the folder of the next step."""
        self.steps += 1
        self._step.mkdir()
        return self._step

    def hand_over(self) -> None:
        """Let the job run the step whose folder was made last."""
        self._ready = self.steps
        self._order()

    def status(self) -> int | None:
        """Return the exit status of the last step; None while it runs.

        Raises `EngineError` where something else stands in its place.
        """
        with (self._step / "status").open("rb") as file:
            text = file.read(_LONGEST_STATUS)
        if not text.endswith(b"\n") and len(text) < _LONGEST_STATUS:
            return None
        if re.fullmatch(rb"[0-9]{1,3}\n", text) is None:
            raise EngineError(
                f"step {self.steps} of job {self.number} ended without an exit status: its file "
                f"in {self._folder} was changed by somebody"
            )
        return int(text)

    def watch(self) -> None:
        """Ask what becomes of the job, if it is time to, and tell what is new.

        Raises `EngineError` where it is over, or would wait for ever.
        """
        if time.monotonic() < self._next:
            return
        found = queue.state(self.number)
        if found is None:
            self._gone()
            return
        self._every = min(self._every * 1.2, _ASK[1])
        self._next = time.monotonic() + self._every
        if found.hopeless:
            raise EngineError(
                f"job {self.number} would wait for ever: {found.reason}",
                hint="`sinfo` lists partitions and what their nodes have; ask for less",
            )
        now = ("", found.nodes) if found.running else (found.reason, "")
        if now == self._told:
            return
        if found.unknown:
            self._progress.say(f"Slurm gives no answer, and is asked again: {found.reason}")
        elif found.waiting:
            why = "" if found.reason in ("", "None") else f": {found.reason}"
            self._progress.say(f"job {self.number} waits in the queue{why}")
        elif not self._runs:
            self._runs = True
            self._progress.say(f"job {self.number} runs on {found.nodes}")
        self._told = now

    def begun(self) -> None:
        """Tell which nodes the job has, where it was too quick for that until now."""
        if not self._runs:
            self._next = 0.0
            self.watch()

    def _gone(self) -> None:
        """Raise what ended the job, unless its last step did just end."""
        end = time.monotonic() + _LATE
        how = None
        while self.status() is None:
            how = how or queue.ended(self.number)
            if how is not None and how.status == batch.BLIND:
                raise EngineError(
                    f"the first node of job {self.number} does not see {self._folder.parent}",
                    hint="name a folder that all nodes share in TORCHSHIP_HOME",
                )
            if time.monotonic() > end or (how is not None and how.word not in ("COMPLETED",)):
                raise queue.why(self.number, how, time_limit=self._time_limit)
            time.sleep(0.2)

    def finish(self) -> None:
        """Let the job end by itself, if it waits for steps."""
        if self.status_known():
            self._stop("end 0\n")
            self._until_gone()

    def status_known(self) -> bool:
        """Tell whether all steps that were handed over have ended."""
        return not self._ready or (self._ready == self.steps and self.status() is not None)

    def cancel(self) -> None:
        """End the job, wherever it is, and remove its folder."""
        self._stop("end 0\n")
        try:
            if not self.number:
                self._look_up()
            if not self.number:
                return
            found = queue.state(self.number)
            # one that is completing has ended: a site's epilog may take its time
            if found is not None and found.word != "COMPLETING":
                queue.cancel(self.number)
                self._until_gone()
                self._progress.say(f"job {self.number} is cancelled")
        finally:
            self._lease.close()  # before it is removed: NFS keeps what is open, and its folder
            shutil.rmtree(self._folder, ignore_errors=True)

    def _look_up(self) -> None:
        """Find out the number, where sbatch was broken off and the job may be there or to come."""
        end = time.monotonic() + _COMING
        with suppress(EngineError):
            while self._asked and not self.number and time.monotonic() < end:
                self.number = queue.named(self._name) or ""
                time.sleep(0.2)
        if self._asked and not self.number:
            # its folder is gone then, without which its script does nothing
            self._progress.say(f"if Slurm still queues {self._name}, it ends as soon as it begins")

    def _until_gone(self) -> None:
        end = time.monotonic() + _LEAVE
        while time.monotonic() < end:
            found = queue.state(self.number)
            if found is None or found.word == "COMPLETING":
                return
            time.sleep(0.2)

    def _stop(self, order: str) -> None:
        self._over.set()
        with self._orders, suppress(OSError):
            (self._folder / "order").write_text(order)

    def _order(self) -> None:
        with self._orders:
            if not self._over.is_set():
                (self._folder / "order").write_text(f"{self._ready} {time.monotonic_ns()}\n")

    def _live(self) -> None:
        while not self._over.wait(_PULSE):
            with suppress(OSError):  # a file system that is full, or away for a while
                self._order()
