"""Slurm as an engine: one job is held for all that is asked, and runs it step after step.

A recording asks the image what processor and which torch there is, runs it once for each seed,
and looks at what it wrote. Each of these alone in the queue would wait for hours; so the job is
submitted once, and gets its steps by files in a folder that this machine and the nodes share.
See docs/decisions/0012-slurm.md.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from msgspec.structs import replace

from torchship.engines import unpack
from torchship.engines.client import last_words
from torchship.engines.request import Request
from torchship.errors import EngineError
from torchship.launch import signals
from torchship.launch.job import Job, Shape, job
from torchship.launch.slurm import batch, bundle, containers, gpus, outcome, queue, rootfs, runtime
from torchship.launch.slurm.containers import BEGUN, INSIDE, START, Step
from torchship.launch.slurm.follow import Log, Tail
from torchship.launch.slurm.held import Held
from torchship.oci.image import Image
from torchship.oci.prune import JOBS
from torchship.oci.pull import fetch_blobs
from torchship.oci.reference import Reference
from torchship.oci.registry.client import Registry
from torchship.oci.store import Store
from torchship.progress import SILENT, Progress

_LOOK = 0.1, 1.0
"""Seconds between two looks at the log: after something came, and at most."""


class Slurm:
    """Runs an image as a job. ``with_`` names what runs containers; None: what is found.

    Not for several threads; `close` ends the job.
    """

    name = "slurm"

    def __init__(
        self,
        reference: Reference,
        shape: Shape,
        *,
        store: Store,
        with_: str | None = None,
        partition: str | None = None,
        account: str | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self._reference = reference
        self._shape = shape
        self._store = store
        self._runtime = with_
        self._partition = partition
        self._account = account
        self._progress = progress
        self._leases = ExitStack()
        self._root: Path | None = None
        self._held: Held | None = None
        self._fault: EngineError | None = None
        self._seen = False
        self._gpus: tuple[bundle.Bind, ...] = ()

    def missing(self) -> str | None:
        """Say in one sentence why no job can be submitted here; None where one can."""
        return None if queue.installed() else "sbatch is not installed: this is no Slurm cluster"

    def description(self, request: Request) -> str:
        """Return the script and the files of a run; nothing is submitted, nothing unpacked.

        Raises `EngineError` where this is a cluster that runs no containers.
        """
        asked = job(request, reference=self._reference, shape=self._shape)
        folder = _parent(self._store) / "job-NUMBER"
        output = request.output.absolute() if request.output else None
        step = Step(job=asked, folder=folder / "step-1", output=output)
        script = batch.script(asked, folder, partition=self._partition, account=self._account)
        # on another machine nobody can be asked what the cluster has
        run_by = runtime.RUNTIMES[0] if self._runtime is None and self.missing() else self._with()
        return batch.printed(script, step, run_by)

    def prepare(self, image: Image, *, progress: Progress = SILENT) -> None:
        """Unpack the image where the nodes see it, unless they bring it themselves."""
        if (reason := self.missing()) is not None:
            raise EngineError(reason, hint="run this on a login node of the cluster")
        if self._with() != "oci" or self._root is not None:
            return
        store = self._store
        store.hold()
        descriptors = [layer.descriptor for layer in image.layers]
        registry = Registry(self._reference.registry)
        fetch_blobs(descriptors, self._reference, store, registry=registry, progress=progress)
        task = progress.task("unpacking the image")
        root = rootfs.tree(store, image.layers, folders=bundle.PLACES, files=bundle.FILES)
        task.finish()
        self._leases.enter_context(unpack.lease([root]))
        store.release()
        self._root = root

    def run(self, request: Request) -> int:
        """Run one step to its end, and return its status: 128 + N after signal N.

        Raises `EngineError` where it could not be started, or Slurm ended it. The job is over
        then, as it is after Ctrl-C.
        """
        if self._fault is not None:
            raise self._fault  # what kept the job from running will not have changed
        asked = job(request, reference=self._reference, shape=self._shape)
        with signals.interrupting():
            try:
                return self._run(asked, request)
            except BaseException as error:
                with signals.undisturbed():
                    self._drop()
                self._fault = error if isinstance(error, EngineError) else None
                raise

    def close(self) -> None:
        """End the job, if there is one."""
        # it is over: what it gave is not given up for a Ctrl-C that comes now
        with suppress(KeyboardInterrupt), signals.undisturbed():
            if self._held is not None:
                self._held.finish()
            self._drop()
            self._leases.close()

    def _run(self, asked: Job, request: Request) -> int:
        self.prepare(request.image, progress=self._progress)
        held = self._held or self._hold(asked)
        if self._root is not None and self._shape.gpus and not self._gpus:
            self._gpus = gpus.binds(self._asked(held, gpus.QUESTION))
        folder = held.next_step()
        output = request.output.absolute() if request.output else None
        step = Step(job=asked, folder=folder, output=output)
        self._write(step)
        with Log(request.log) as log:
            out = Tail(folder / "stdout", (*log.descriptors, request.stdout))
            err = Tail(folder / "stderr", (*log.descriptors, request.stderr))
            status = _ended(held, out, err)
        if status != 0:
            return outcome.failed(
                step, status, err.last, number=held.number, progress=self._progress
            )
        return status

    def _asked(self, held: Held, question: str) -> str:
        """Return what a node answers to a line of bash."""
        folder = held.next_step()
        (folder / "run").write_text(batch.asking(question, folder / "stdout"))
        for name in ("stdout", "status", "srun.log"):
            (folder / name).touch()
        if _ended(held) != 0:
            said = last_words((folder / "srun.log").read_text(errors="replace"))
            raise EngineError(
                f"the first node could not be asked for its GPUs: {said}",
                hint="or let the nodes run the image by --with apptainer|podman|docker",
            )
        return (folder / "stdout").read_text(errors="replace")

    def _with(self) -> str:
        if self._runtime is None:
            self._runtime = runtime.found()
        return self._runtime

    def _hold(self, asked: Job) -> Held:
        folder = _parent(self._store)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._store.hold()  # until the folder is leased, `prune` waits
        place = Path(tempfile.mkdtemp(prefix="job-", dir=folder))
        whole = replace(asked, shape=self._shape)
        self._held = Held(  # known before it is submitted: Ctrl-C may come at any time
            batch.job_name(whole, place),
            place,
            time_limit=self._shape.time_limit,
            progress=self._progress,
        )
        self._store.release()
        script = batch.script(whole, place, partition=self._partition, account=self._account)
        self._held.submit(script)
        return self._held

    def _write(self, step: Step) -> None:
        """Write what a step needs; nobody but the user reads it."""
        texts = {
            "run": batch.run(step, self._with(), places=self._places(step), root=self._root),
            f"{INSIDE}/{START}": batch.start(
                step.job, libraries=gpus.LIBRARIES if self._gpus else None
            ),
            f"{INSIDE}/{BEGUN}": "",
            **containers.files(step, self._with()),
            **dict.fromkeys(("stdout", "stderr", "status", "srun.log"), ""),
        }
        (step.folder / INSIDE).mkdir()
        for name, text in texts.items():
            (step.folder / name).write_text(text)
        if self._root is not None:
            folder = step.folder / "bundle"
            folder.mkdir()
            (folder / bundle.ROOTFS).symlink_to(self._root)
            made = bundle.config(
                step.job.image,
                self._root,
                (*containers.binds(step), *self._gpus),
                shared_memory=self._shape.shared_memory,
            )
            (folder / bundle.CONFIG).write_bytes(made)

    def _places(self, step: Step) -> tuple[Path, ...]:
        """Return what all nodes must see, where it is not known yet that they do."""
        if self._seen and step.output is None:
            return ()
        self._seen = True
        return tuple(place for place in (self._root, step.folder, step.output) if place)

    def _drop(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.cancel()


def _ended(held: Held, *tails: Tail) -> int:
    """Hand the last step over and wait for its end; pass on what it prints; return its status."""
    held.hand_over()
    pause = _LOOK[0]
    try:
        while (status := held.status()) is None:
            moved = [tail.look() for tail in tails]
            held.watch()
            pause = _LOOK[0] if any(moved) else min(pause * 1.5, _LOOK[1])
            time.sleep(pause)
    except BaseException:
        with suppress(OSError):  # the terminal may be what is gone
            for tail in tails:
                tail.look()
        raise
    for tail in tails:
        tail.look()
    held.begun()
    return status


def _parent(store: Store) -> Path:
    return store.home.absolute() / JOBS
