"""The main jobs, one short function each: lock, build, run.

Each reads as a sentence: qualify what the user has, derive what is missing, publish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from torchship.amounts import counted
from torchship.digest import Descriptor, Digest
from torchship.errors import BlobMissing, LockError, MetricsError, RecordError, TorchshipError
from torchship.platform import Platform
from torchship.progress import Progress
from torchship.project import lock as lockfile
from torchship.project.lock import Lock
from torchship.project.project import Project

if TYPE_CHECKING:
    from torchship.engines.request import Engine, Request
    from torchship.oci.cache import Cache, Taken
    from torchship.oci.image import Image
    from torchship.oci.reference import Reference
    from torchship.oci.store import Store
    from torchship.runs.run import RunDirectory


def lock(
    project: Project,
    path: Path,
    *,
    store: Store,
    platforms: Sequence[Platform] = (),
    upgrade: bool = False,
    progress: Progress,
) -> Lock:
    """Resolve the project and write its lock; present pins are kept unless ``upgrade``.

    With ``platforms``, those are locked, and besides them what was locked before: of it, no more
    than the project's own where anything has to be resolved anew, so that a platform which the
    project gave up is not asked for again.
    """
    from torchship.oci.base import resolve_image
    from torchship.project import resolve
    from torchship.project.overlooked import overlooked, unlisted

    for line in overlooked(project):
        progress.say(line)
    previous = None
    if path.exists():
        try:
            previous = lockfile.load(path)
        except LockError as error:
            progress.say(f"{error.message}: locking afresh")
    wanted = set(platforms or project.platforms)
    if platforms and previous is not None:
        held = {entry.platform for entry in previous.platforms}
        fits = not upgrade and not resolve.stale(project, previous)
        wanted |= held if fits else held & set(project.platforms)
    found = resolve.resolve(
        project,
        platforms=tuple(sorted(wanted)),
        previous=previous,
        upgrade=upgrade,
        progress=progress,
        state=store.home / "apt",
        cache=store.home / "uv",
        resolve_image=partial(resolve_image, store=store, progress=progress),
    )
    lockfile.save(found, path)
    for line in lockfile.changes(previous, found) if previous is not None else ():
        progress.say(line)
    for line in unlisted(project, found):
        progress.say(line)
    return found


def locked(
    project: Project,
    path: Path,
    *,
    store: Store,
    platforms: Sequence[Platform],
    progress: Progress,
) -> Lock:
    """Return the lock that fits the project as it is now, resolving only what changed."""
    from torchship.project import resolve

    if not path.exists():
        progress.say(f"no {path.name} yet: resolving")
        return lock(project, path, store=store, platforms=platforms, progress=progress)
    present = lockfile.load(path)
    changes = resolve.stale(project, present, platforms)
    if not changes:
        return present
    progress.say(f"{path.name} is stale ({'; '.join(changes)}): resolving")
    return lock(project, path, store=store, platforms=platforms, progress=progress)


def build(
    project: Project,
    pins: Lock,
    *,
    store: Store,
    platforms: Sequence[Platform],
    variants: Sequence[str] = (),
    names: Sequence[str | Reference],
    progress: Progress,
    cache: Cache | None = None,
) -> Descriptor:
    """Build an image for each platform, tag it (an index over several), return what was tagged.

    Of each platform, one is built for each of ``variants`` (default: the project's). What
    ``cache`` offers is taken by digest; the store notes where such layers can be had.
    """
    from torchship.assembly import content, published_base
    from torchship.oci.assemble import assemble, index

    manifests = []
    wanted = [(each, name) for each in platforms for name in variants or project.variants]
    for platform, variant in wanted:
        entry = pins.platform(platform, variant)
        below = published_base(entry, store=store, progress=progress, cache=cache)
        made = content(
            project, pins, entry, below=below, store=store, progress=progress, cache=cache
        )
        manifests.append(
            assemble(
                store,
                project=replace(project, base=entry.base.reference),
                platform=platform,
                layers=made.layers,
                search_path=made.search_path,
                below=below,
                variant=variant,
            )
        )
        if cache is not None:
            _tell(cache.note(store, manifests[-1].digest, made.layers), progress)
    top = manifests[0] if len(manifests) == 1 else index(store, manifests)
    for name in names:
        store.tag(name, top)
    return top


def _tell(taken: Taken, progress: Progress) -> None:
    from torchship.amounts import size

    if taken.holders:
        progress.say(
            f"{counted(taken.layers, 'layer')} ({size(taken.size)}) taken by digest from "
            f"{', '.join(each.familiar for each in taken.holders)}: "
            f"received {size(taken.received)}"
        )


def ready(
    store: Store, top: Descriptor, platform: Platform, *, variant: str = "", progress: Progress
) -> Image:
    """Return a platform's image with all its layers in the store: ``variant``, or its first.

    Those that were taken by digest, and another platform of an index, are pulled from where
    the image was published. Raises `BlobMissing` where they are nowhere.
    """
    from torchship.oci.image import read_image

    try:
        image = read_image(store, top, platform, variant)
    except BlobMissing:
        image = None
    if image is None or any(layer.digest not in store.blobs for layer in image.layers):
        from torchship.oci.complete import complete

        complete(store, top, platform=platform, variant=variant, progress=progress)
        image = read_image(store, top, platform, variant)
    return image


class Outcome(Struct, frozen=True, kw_only=True):
    """What one run gave. ``status`` is the program's exit status, ``seconds`` wall-clock time.

    ``diverged`` are metrics that came out as NaN, infinite, or as good as that; ``unrecorded`` says
    why there is no record of the run, ``unread`` why its metrics could not be read.
    """

    status: int
    seconds: float
    metrics: Mapping[str, float]
    diverged: tuple[str, ...] = ()
    unrecorded: RecordError | None = None
    unread: MetricsError | None = None


def run(
    request: Request,
    engine: Engine,
    *,
    image: Image,
    name: str,
    directory: RunDirectory,
    index: Digest | None = None,
) -> Outcome:
    """Run an image once and write down what it gave.

    The program's exit status is the answer, also where its metrics are not what was declared: its
    record is there, without them.
    """
    from torchship.project.seeds import unseeded
    from torchship.runs.capacity import fitted
    from torchship.runs.execution import declared, execute, of_one_run
    from torchship.runs.statement import encode

    stated = declared(image)
    command, seed = unseeded(
        request.command or image.command, {**image.environment, **request.environment}, stated.seed
    )
    try:
        done = execute(
            request,
            engine,
            metrics_of=stated.metrics,
            output=directory.output,
            log=directory.log,
            seed=seed,
        )
    except TorchshipError:
        directory.discard()
        raise
    record = of_one_run(
        done,
        image=image,
        name=name,
        index=index,
        engine=engine.name,
        command=command,
        seed=stated.seed,
        request=request,
    )
    unrecorded = None
    try:
        directory.record.write_bytes(encode(fitted(record)))
    except RecordError as error:  # the program's work is done, and its exit status the answer
        unrecorded = error
    return Outcome(
        status=done.run.status,
        seconds=done.run.seconds,
        metrics=done.run.metrics,
        diverged=done.run.diverged,
        unrecorded=unrecorded,
        # a program that was killed while it wrote them was killed: that says it all
        unread=done.fault if done.run.status == 0 else None,
    )
