"""One execution of an image, and all that it left behind."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec.structs import replace

from torchship import __version__
from torchship.digest import Digest
from torchship.engines.request import Engine, Request
from torchship.errors import InvalidDigest, ManifestError, MetricsError
from torchship.oci.assemble import DATA, SEED
from torchship.oci.image import Image
from torchship.project import seeds
from torchship.project.project import Metric
from torchship.runs import curve, metrics
from torchship.runs.claims import claims
from torchship.runs.outputs import outputs
from torchship.runs.parameters import parameters, workers
from torchship.runs.record import Determinism, ImageUsed, Record, Run, Source
from torchship.runs.shelter import sheltered

BASE = "org.opencontainers.image.base.name"
"""OCI image-spec, annotations.md: what an image stands on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What an image's labels say of how it is measured: a stranger's words, checked."""

    metrics: tuple[Metric, ...] = ()
    seed: str | None = None
    data: tuple[tuple[str, Digest], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A run, and its declared metrics with what it told of them.

    ``fault`` says why the metrics of a run could not be read.
    """

    run: Run
    metrics: tuple[Metric, ...]
    fault: MetricsError | None = None


def declared(image: Image) -> Declared:
    """Read an image's labels; raise `ManifestError` where they say nothing that can be."""
    seed = image.labels.get(SEED)
    if seed is not None and (fault := seeds.fault(seed)):
        raise ManifestError(f"the image's label {SEED} is faulty: {fault}")
    try:
        data = msgspec.json.decode(image.labels.get(DATA, "{}"), type=dict[str, str])
        pairs = tuple((path, Digest.parse(text)) for path, text in sorted(data.items()))
    except (msgspec.MsgspecError, InvalidDigest) as error:
        raise ManifestError(f"the image's label {DATA} names no data files: {error}") from None
    return Declared(metrics=metrics.declared(image.labels), seed=seed, data=pairs)


def execute(
    request: Request,
    engine: Engine,
    *,
    metrics_of: tuple[Metric, ...],
    output: Path,
    log: Path,
    seed: int | None,
    runs: int = 1,
) -> Execution:
    """Run an image once, to its end, and read what it gave. Raises what the engine raises.

    ``runs`` is how many a record is to hold: of many, each keeps fewer steps of its curve.
    """
    began, clock = datetime.now(UTC).replace(microsecond=0), time.monotonic()
    with sheltered(output):
        status = engine.run(request)
    seconds = time.monotonic() - clock
    found, fault = metrics.NOTHING, None
    try:
        found = metrics.collect(metrics_of, output=output, log=log)
    except MetricsError as error:
        fault = error
    return Execution(
        run=Run(
            started=began,
            seconds=round(seconds, 3),
            status=status,
            seed=seed,
            metrics=found.values,
            diverged=found.diverged,
            outputs=outputs(output),
            curve=curve.read(output=output, log=log, most=curve.share(runs)),
        ),
        metrics=tuple(
            replace(metric, examples=metric.examples or found.examples.get(metric.name))
            for metric in metrics_of
        ),
        fault=fault,
    )


def of_one_run(
    execution: Execution,
    *,
    image: Image,
    name: str,
    index: Digest | None,
    engine: str,
    command: tuple[str, ...],
    seed: str | None,
    request: Request,
) -> Record:
    """Return a record of one run: what it gave, and nothing of the machine.

    ``command`` is without the seed; ``index`` the image's, where it was found in one; ``request``
    is what was run, of which names and places are noted.
    """
    found = parameters(command)
    return Record(
        image=used(image, name, index),
        command=command,
        parameters=found,
        seed=seed,
        runs=(execution.run,),
        recorded=datetime.now(UTC).replace(microsecond=0),
        torchship=__version__,
        engine=engine,
        network=request.network,
        variables=tuple(sorted(request.environment)),
        mounts=tuple(sorted(mount.target for mount in request.mounts)),
        source=source(image),
        determinism=Determinism(workers=workers(found)),
        claims=claims((execution.run,), execution.metrics),
    )


def source(image: Image) -> Source | None:
    """Return the digest of the project's files in an image: of its last layer, unpacked."""
    top = image.layers[-1] if image.layers else None
    if top is None or not top.title.startswith("source"):
        return None
    return Source(tree=top.diff_id)


def used(image: Image, name: str, index: Digest | None) -> ImageUsed:
    """Return what a record says of an image; ``index`` is what it was found in, or itself."""
    manifest = image.descriptor.digest
    return ImageUsed(
        name=name,
        platform=str(image.platform),
        manifest=manifest,
        index=index if index != manifest else None,
        base=image.labels.get(BASE),
    )
