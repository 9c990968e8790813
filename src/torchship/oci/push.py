"""From the store into a registry: only what it lacks, and manifests after all they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

from torchship.digest import Descriptor, chunks
from torchship.errors import BlobMissing, ManifestError
from torchship.oci.manifest import Manifest, parse
from torchship.oci.parallel import each
from torchship.oci.pull import label
from torchship.oci.reference import Reference
from torchship.oci.registry import Registry
from torchship.oci.store import Store
from torchship.progress import Progress

_DEPTH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did, in bytes of blobs: sent, mounted from a neighbour, there already."""

    descriptor: Descriptor
    sent: int
    mounted: int
    skipped: int


class _Way(Enum):
    SENT = "sent"
    MOUNTED = "mounted"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A manifest or index of the store, with its raw bytes."""

    descriptor: Descriptor
    raw: bytes
    blobs: tuple[Descriptor, ...]


def push(
    store: Store,
    descriptor: Descriptor,
    reference: Reference,
    *,
    mount_from: Sequence[Reference] = (),
    progress: Progress,
    registry: Registry | None = None,
) -> Pushed:
    """Send an image, or an index with all its images, and name it ``reference`` there.

    Blobs that the store lacks are fine where the registry has them (layers that were taken
    by digest from a published image). ``mount_from`` are images that may share blobs: those
    of the same registry are mounted from. The name changes last, after all it needs.
    """
    target = registry or Registry(reference.registry, access="pull,push")
    manifests = tuple(_manifests(store, target, descriptor, reference))
    blobs = {blob.digest: blob for manifest in manifests for blob in manifest.blobs}
    ordered = sorted(blobs.values(), key=lambda blob: -blob.size)
    origins = tuple(
        dict.fromkeys(
            other.repository
            for other in mount_from
            if other.registry == reference.registry and other.repository != reference.repository
        )
    )
    work = partial(
        _bring,
        store=store,
        registry=target,
        repository=reference.repository,
        origins=origins,
        progress=progress,
    )
    ways = each(ordered, work)
    for manifest in manifests[:-1]:
        named = reference.with_digest(manifest.descriptor.digest)
        target.put_manifest(named, manifest.raw, manifest.descriptor.media_type)
    target.put_manifest(reference, manifests[-1].raw, descriptor.media_type)
    sizes = dict.fromkeys(_Way, 0)
    for blob, way in zip(ordered, ways, strict=True):
        sizes[way] += blob.size
    return Pushed(
        descriptor=descriptor,
        sent=sizes[_Way.SENT],
        mounted=sizes[_Way.MOUNTED],
        skipped=sizes[_Way.SKIPPED],
    )


def _manifests(
    store: Store, registry: Registry, descriptor: Descriptor, reference: Reference, depth: int = 0
) -> Iterator[_Stored]:
    """Yield all manifests to send, children before the index that names them."""
    if depth > _DEPTH:
        raise ManifestError(f"{reference} is an index of indexes, {depth} deep")
    raw = store.read(descriptor)
    document = parse(raw, descriptor.media_type, str(descriptor.digest))
    if isinstance(document, Manifest):
        yield _Stored(descriptor=descriptor, raw=raw, blobs=document.blobs)
        return
    for child in document.manifests:
        if store.has(child.digest):
            yield from _manifests(store, registry, child, reference, depth + 1)
        elif registry.find_manifest(reference.with_digest(child.digest)) is None:
            # A pull for one platform brings the index, but not its other images.
            raise BlobMissing(
                f"the index {descriptor.digest} names {child.digest}, "
                f"which is neither in the store nor at {reference.name}",
                hint="pull the image for all platforms, then push it again",
            )
    yield _Stored(descriptor=descriptor, raw=raw, blobs=())


def _bring(
    blob: Descriptor,
    beat: Callable[[], None],
    *,
    store: Store,
    registry: Registry,
    repository: str,
    origins: Sequence[str],
    progress: Progress,
) -> _Way:
    """See to it that the repository has a blob, by the cheapest way."""
    beat()
    if registry.has_blob(repository, blob):
        return _Way.SKIPPED
    for origin in origins:
        if registry.mount(repository, blob, origin=origin):
            return _Way.MOUNTED
    task = progress.task(f"pushing {label(blob)}", blob.size)

    def source(offset: int) -> Iterator[bytes]:
        with store.open_blob(blob.digest) as stream:
            stream.seek(offset)
            for piece in chunks(stream):
                beat()
                yield piece

    registry.upload(repository, blob, source, task.advance)
    task.finish()
    return _Way.SENT
