"""Kubernetes as a cluster: a job created, followed to its end, its output fetched, all deleted."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from torchship.engines.request import Request
from torchship.errors import EngineError
from torchship.launch.job import Job, Shape
from torchship.launch.job import job as job_of
from torchship.launch.kubernetes import indexed, manifest, trainjob
from torchship.launch.kubernetes.following import Following
from torchship.launch.kubernetes.kubectl import Kubectl, Refused, not_installed
from torchship.launch.kubernetes.pod import LABEL, Object
from torchship.launch.kubernetes.settings import Settings
from torchship.launch.kubernetes.trouble import NotBegun
from torchship.launch.signals import interrupting, undisturbed
from torchship.oci.image import Image
from torchship.oci.reference import Reference
from torchship.progress import SILENT, Progress

_PAUSES = (0, 1, 3)
"""Seconds before each try to delete a job: the cluster may not answer at once."""


class Form(Protocol):
    """What a job is made of in the cluster: one module for each kind."""

    @property
    def KINDS(self) -> str:  # noqa: N802 (a module's constant)
        """What a job consists of, as ``kubectl get`` takes it."""

    @property
    def CONTAINER(self) -> str:  # noqa: N802
        """The container that runs the program."""

    def objects(self, job: Job, name: str, settings: Settings, /) -> tuple[Object, ...]:
        """Return the objects that are a job."""

    def deletable(self, job: Job, /) -> str:
        """Return what of a job is ours to delete, as ``kubectl delete`` takes it."""


class Kubernetes:
    """Runs images as jobs of a Kubernetes cluster. Each job has a name of its own there."""

    name = "kubernetes"

    def __init__(
        self,
        reference: Reference,
        shape: Shape,
        *,
        settings: Settings | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self._reference = reference
        self._shape = shape
        self._settings = settings or Settings()
        self._settings.check()
        self._form: Form = trainjob if self._settings.kind == "trainjob" else indexed
        self._progress = progress
        self._kubectl = Kubectl(self._settings)
        self._fault: EngineError | None = None

    def missing(self) -> str | None:
        """Say in one sentence why the cluster cannot be used from here; None: it can be asked."""
        return None if self._kubectl.installed else not_installed().message

    def prepare(self, image: Image, *, progress: Progress = SILENT) -> None:
        """Do nothing: the nodes pull what they lack."""

    def description(self, request: Request) -> str:
        """Return the job as YAML, for ``kubectl create -f -``; nothing is submitted."""
        job, name = self._named(request)
        return manifest.write(self._form.objects(job, name, self._settings))

    def close(self) -> None:
        """Do nothing: each run has deleted what it made."""

    def run(self, request: Request) -> int:
        """Run to the end and return the program's exit status: 128 + N after signal N.

        Raises `EngineError` where the program could not be started, `RunError` where the cluster
        ended it. Whatever happens, the job is deleted.
        """
        if self._fault is not None:
            raise self._fault  # what one job could not have, the next cannot either
        if not self._kubectl.installed:
            raise not_installed()
        job, name = self._named(request)
        with ExitStack() as stack:
            sinks = [request.stdout]
            if request.log is not None:
                sinks.append(stack.enter_context(request.log.open("wb", buffering=0)).fileno())
            stack.enter_context(interrupting())
            try:
                with self._created(job, name):
                    return Following(
                        self._kubectl,
                        job,
                        name,
                        kinds=self._form.KINDS,
                        container=self._form.CONTAINER,
                        output=request.output,
                        sinks=tuple(sinks),
                        progress=self._progress,
                    ).to_the_end()
            except NotBegun:
                raise  # the image's other programs may well be there
            except EngineError as error:
                self._fault = error
                raise

    def _named(self, request: Request) -> tuple[Job, str]:
        job = job_of(request, reference=self._reference, shape=self._shape)
        return job, f"{job.name}-{secrets.token_hex(3)}"

    @contextmanager
    def _created(self, job: Job, name: str) -> Iterator[None]:
        """Create a job, and delete it whatever happens inside."""
        objects = self._form.objects(job, name, self._settings)
        try:
            self._kubectl.tell("create", "--filename=-", stdin=manifest.write(objects))
        except Refused as error:
            # One of several objects is there, or all are and the answer was lost
            if error.out or not (error.final or error.unsent):
                self._delete(job, name)
            raise
        except BaseException:
            self._delete(job, name)  # it may be there
            raise
        try:
            if job.output is not None:
                self._progress.say(f"created the job {name} of {job.shape}")
            yield
        finally:
            self._delete(job, name)

    def _delete(self, job: Job, name: str) -> None:
        what = (self._form.deletable(job), f"--selector={LABEL}={name}")
        with undisturbed():
            for pause in _PAUSES:
                time.sleep(pause)
                try:
                    self._kubectl.tell("delete", *what, "--ignore-not-found", "--wait=false")
                    return
                except EngineError as error:
                    last = error
                if isinstance(last, Refused) and last.final:
                    break
        self._progress.say(
            f"the job may still be there: {last.message}; "
            f"`kubectl delete {' '.join(what)}` deletes it"
        )
