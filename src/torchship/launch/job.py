"""What a cluster is asked to run: an image, its command, and the machines that it needs.

A cluster is an engine (`engines.request.Engine`): it is asked to run a request to its end, and
`runs.recording` makes its record as of any other engine's. A request with an output directory is
a run, and a job on all of its nodes; one without is a question that is asked inside the image
(which processor, which torch), and needs one process on one node.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct, field

from torchship.amounts import counted
from torchship.engines.request import Request
from torchship.errors import EngineError, UsageError
from torchship.launch import torchrun
from torchship.layers.layout import OUTPUT
from torchship.oci.image import Image
from torchship.oci.reference import Reference

PORT = 29500
"""Where the nodes find each other, unless told otherwise: torchrun's own default."""

OUTPUT_VARIABLE = "TORCHSHIP_OUTPUT"
"""What tells a program where its output directory is."""

_LONGEST_NAME = 40  # of 63, so that a cluster can append what makes it unique
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A variable's name as every shell takes it."""


class Shape(Struct, frozen=True, kw_only=True):
    """The machines of a job. What is None is left to the cluster.

    ``processes``, ``gpus``, ``cpus``, ``memory`` and ``shared_memory`` are of each node; amounts
    of memory are in bytes, ``time_limit`` in seconds. ``max_restarts`` is how often torchrun
    starts its processes anew when one of them dies.
    """

    nodes: int = 1
    processes: int = 1
    gpus: int = 0
    cpus: int | None = None
    memory: int | None = None
    shared_memory: int | None = None
    time_limit: int | None = None
    max_restarts: int = 0
    port: int = PORT

    @property
    def world(self) -> int:
        """How many processes there are in all."""
        return self.nodes * self.processes

    @property
    def started_by_torchrun(self) -> bool:
        """Whether more than one process has to be started, or one perhaps more than once."""
        return self.world > 1 or self.max_restarts > 0

    def __str__(self) -> str:
        each = "1 process" if self.processes == 1 else f"{self.processes} processes"
        return f"{counted(self.nodes, 'node')} of {each}"


class Job(Struct, frozen=True, kw_only=True):
    """One job, checked. ``reference`` is the image by digest, as the nodes can pull it.

    ``name`` is a label of DNS (RFC 1123), not unique. ``command`` is the whole argv inside the
    image, with its entrypoint and with torchrun where the job needs it.
    ``environment`` is set on top of the image's own. ``output`` is where the container has its
    output directory; None where nothing is to be kept.
    """

    name: str
    reference: Reference
    image: Image
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    shape: Shape
    output: str | None = OUTPUT


def job(request: Request, *, reference: Reference, shape: Shape) -> Job:
    """Return the job that answers a request.

    Raises `UsageError` for one that no cluster runs, `EngineError` for one that needs folders of
    this machine.
    """
    image = request.image
    words = image.entrypoint + (request.command or image.command)
    _check(request, words)
    asked = shape if request.output is not None else question(shape)
    environment = dict(request.environment)
    if request.output is not None:
        environment.setdefault(OUTPUT_VARIABLE, OUTPUT)
    return Job(
        name=name(reference),
        reference=reference,
        image=image,
        command=torchrun.command(words, asked) if asked.started_by_torchrun else words,
        environment=environment,
        shape=asked,
        output=OUTPUT if request.output is not None else None,
    )


def question(shape: Shape) -> Shape:
    """Return what a question needs: one process of one node, with what that node has for it."""
    return Shape(
        gpus=shape.gpus,
        cpus=shape.cpus,
        memory=shape.memory,
        shared_memory=shape.shared_memory,
        time_limit=shape.time_limit,
        port=shape.port,
    )


def name(reference: Reference) -> str:
    """Return a label of DNS made of an image's name: lower-case letters, digits and hyphens."""
    last = reference.repository.rpartition("/")[2]
    label = re.sub(r"[^a-z0-9]+", "-", last.lower())[:_LONGEST_NAME].strip("-")
    if not label:
        return "torchship"
    return label if label[0].isalpha() else f"run-{label}"


def _check(request: Request, words: tuple[str, ...]) -> None:
    if not words or not words[0]:
        raise UsageError("the image names no command", hint="give one after `--`")
    if not all(_is_text(word) for word in words):
        raise UsageError(
            "the command holds a NUL byte, or is not UTF-8", hint="give another one after `--`"
        )
    for variable, value in request.environment.items():
        if not VARIABLE.fullmatch(variable) or not _is_text(value):
            raise UsageError(
                f"{variable!r} cannot be set: a variable's name has letters, digits and '_', and "
                "its value is UTF-8 without a NUL byte"
            )
    if request.interactive or request.tty:
        raise UsageError("a job of a cluster has no terminal", hint="leave out what reads from one")
    if request.mounts:
        # An engine's fault, not the user's: what `runs.inside` would ask of outputs that are here
        # already then stays unknown, and the runs are not lost for it
        raise EngineError("a job of a cluster sees no folder of this machine")


def _is_text(word: str) -> bool:
    """Tell whether a word can stand in a script: Python keeps other bytes as lone surrogates."""
    return "\0" not in word and not any("\ud800" <= letter <= "\udfff" for letter in word)
