"""A record: what the runs of an image were and gave. `runs.statement` writes and reads it.

Everything in a record that came from elsewhere was checked as to its form, and is still a
stranger's text: whoever shows it escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Literal

from torchship.digest import Digest

Exact = Annotated[float, "exact"]
"""A finite float that stands in JSON with its hexadecimal form, which loses nothing."""

GREATEST = 1e150
"""A metric of this size has diverged: it has no spread, for its square is no float."""

EMPTY: Mapping[str, str] = MappingProxyType({})
"""No variables, no parameters, no packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What a run logged step by step. ``steps`` are in the order in which they were logged.

    ``source`` is a file of the output, or ``stdout``; ``count`` how many steps were logged. Of a
    long log every ``every``-th is kept, and the last one.
    """

    source: str
    count: int
    steps: tuple[Mapping[str, float], ...]
    every: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution. ``seconds`` is wall-clock time; ``status`` the program's exit status.

    ``seed`` is None where the program was given none. ``diverged`` names the metrics that came
    out as NaN or infinite. ``outputs`` are digests of the files' bytes; ``tensors`` those of
    the contents of files that hold tensors: two ``.pt`` files may differ, and their tensors not.
    """

    started: datetime
    seconds: float
    status: int
    seed: int | None = None
    metrics: Mapping[str, Exact] = field(default_factory=dict)
    diverged: tuple[str, ...] = ()
    outputs: Mapping[str, Digest] = field(default_factory=dict)
    tensors: Mapping[str, Digest] = field(default_factory=dict)
    curve: Curve | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One metric over all the runs: what a reproduction is judged by.

    ``spread`` is the sample standard deviation of ``n`` runs, None where fewer than two tell.
    ``tolerance`` is how far a reproduction's mean may be off; it was ``declared`` by the author,
    or follows from the spread of the ``runs``; None where neither gives one. ``examples`` is
    the number that an accuracy is a fraction of.
    """

    name: str
    n: int
    mean: Exact
    spread: Exact | None = None
    better: Literal["higher", "lower"] | None = None
    tolerance: Exact | None = None
    tolerance_from: Literal["declared", "runs"] | None = None
    examples: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUsed:
    """The image that ran. ``manifest`` is its platform's, ``index`` the one it was found in."""

    name: str
    platform: str
    manifest: Digest
    index: Digest | None = None
    base: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The project's own code. ``tree`` is the diff_id of its layer in the image.

    ``commit`` is git's, where the record was made from a checkout; ``dirty`` tells that files
    of it were changed.
    """

    tree: Digest | None = None
    commit: str | None = None
    dirty: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataUsed:
    """A data file, as it was found in the container before and after the runs."""

    name: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """A seed that was run twice. ``differs`` names the metrics and outputs that came out other.

    ``seed`` is None where the program was given none.
    """

    seed: int | None = None
    identical: bool
    differs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Determinism:
    """What is known to decide whether a run gives the same bits again.

    ``environment`` holds the variables of an allow list; ``threads`` are torch's own;
    ``workers`` are those that the command names for loading data.
    """

    profile: Literal["default", "strict"] = "default"
    environment: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    threads: int | None = None
    interop_threads: int | None = None
    workers: int | None = None
    repeat: Repeat | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU that the program could use. ``memory`` is in bytes."""

    name: str
    capability: str | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The machine, as seen from inside the container. ``memory`` is in bytes.

    ``instruction_set`` is the level that torch chose, such as ``AVX512``; ``flags`` are the
    processor's own, of those that decide which code runs.
    """

    machine: str
    cpu: str | None = None
    vendor: str | None = None
    processors: int | None = None
    memory: int | None = None
    instruction_set: str | None = None
    flags: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """What ran, as seen from inside the container. ``torch_build`` is how torch was compiled."""

    python: str
    kernel: str | None = None
    libc: str | None = None
    torch: str | None = None
    torch_build: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    numpy: str | None = None
    packages: Mapping[str, str] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What n runs of one image were and gave.

    ``command`` and ``parameters`` are without the seed; ``seed`` is how it is given to the
    program, such as ``--seed {seed}``. ``claims`` follow from ``runs``: `runs.statement` reads
    no record in which they do not. ``hardware`` and ``software`` are None where nobody looked.
    ``variables`` are the names, never the values, of what the caller set besides, and ``mounts``
    the paths at which folders of the caller's stood: the image alone does not give such a run.
    """

    image: ImageUsed
    command: tuple[str, ...]
    runs: tuple[Run, ...]
    recorded: datetime
    torchship: str
    engine: str
    seed: str | None = None
    parameters: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    network: bool = False
    variables: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    source: Source | None = None
    data: tuple[DataUsed, ...] = ()
    determinism: Determinism = field(default_factory=Determinism)
    hardware: Hardware | None = None
    software: Software | None = None
    claims: tuple[Claim, ...] = ()
