"""From a registry into the store: every byte verified, named only when all is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from msgspec import Struct

from torchship.digest import Descriptor, Digest
from torchship.errors import ManifestError
from torchship.layers.layer import TITLE
from torchship.oci.image import Image, read_one
from torchship.oci.manifest import Index, Manifest, parse
from torchship.oci.parallel import each
from torchship.oci.reference import Reference
from torchship.oci.registry.client import Registry, wrong_blob
from torchship.oci.store import Store
from torchship.oci.variant import Choice
from torchship.platform import Platform
from torchship.progress import Progress

_DEPTH = 3
"""Indexes within indexes: what tools make is one level, what attackers make is endless."""
_MOST = 1000  # manifests of one image


class Pulled(Struct, frozen=True, kw_only=True):
    """What a reference names, now in the store; ``received`` counts the bytes of blobs."""

    descriptor: Descriptor
    received: int
    skipped: int


def pull(
    reference: Reference,
    store: Store,
    *,
    platform: Platform | None,
    choice: Choice | None = None,
    approve: Callable[[Image], object] | None = None,
    progress: Progress,
    registry: Registry | None = None,
) -> Pulled:
    """Bring an image into the store and name it there as the registry does.

    ``platform`` chooses from an index, and ``choice`` from the variants that it has for that
    platform (None: the first); without a platform all that it holds is taken. An index keeps its
    raw bytes, and so its digest, even where one of its images is taken. What the store has is
    not fetched. ``approve`` is shown each image before its layers are fetched, and refuses by
    an error of its own. Raises `RegistryError`, `ManifestError` or `StoreError`; then the name
    still means what it meant before.
    """
    source = registry or Registry(reference.registry)
    raw, top = source.manifest(reference)
    found = tuple(_images(reference, raw, top, store, source, platform, choice, set()))
    store.put(raw, top.media_type)
    fetch = partial(fetch_blobs, store=store, registry=source, progress=progress)
    received = 0
    if approve is not None:
        received += fetch([manifest.config for _, manifest in found], reference)
        for descriptor, _ in found:
            approve(read_one(store, descriptor))
    blobs = {blob.digest: blob for _, manifest in found for blob in manifest.blobs}
    received += fetch(tuple(blobs.values()), reference)
    store.origins.add(top.digest, [reference])
    store.tag(reference, top)
    total = sum(blob.size for blob in blobs.values())
    return Pulled(descriptor=top, received=received, skipped=total - received)


def fetch_blobs(
    blobs: Sequence[Descriptor],
    reference: Reference,
    store: Store,
    *,
    registry: Registry,
    progress: Progress,
) -> int:
    """Bring blobs that the store lacks into it, the largest first; return the bytes that came.

    What an earlier attempt left of a blob is not fetched again, nor is what another process is
    just fetching.
    """
    missing = [blob for blob in blobs if not store.has(blob.digest)]
    missing.sort(key=lambda blob: -blob.size)
    work = partial(_fetch, store=store, registry=registry, reference=reference, progress=progress)
    return sum(each(missing, work))


def _images(
    reference: Reference,
    raw: bytes,
    descriptor: Descriptor,
    store: Store,
    registry: Registry,
    platform: Platform | None,
    choice: Choice | None,
    seen: set[Digest],
    depth: int = 0,
) -> Iterator[tuple[Descriptor, Manifest]]:
    """Yield the manifests of images below a descriptor, each once, and put those of an index away.

    ``seen`` takes their digests: a stranger's index may name one a million times.
    """
    seen.add(descriptor.digest)
    if len(seen) > _MOST:
        raise ManifestError(f"{reference} holds more than {_MOST} manifests")
    document = parse(raw, descriptor.media_type, str(reference))
    if isinstance(document, Manifest):
        yield descriptor, document
        return
    if depth == _DEPTH:
        raise ManifestError(f"{reference} is an index of indexes, {depth} deep")
    for child in _wanted(document, platform, choice, reference):
        if child.digest in seen:
            continue
        below = _child(reference.with_digest(child.digest), child, store, registry)
        yield from _images(
            reference, below, child, store, registry, platform, choice, seen, depth + 1
        )


def _wanted(
    index: Index, platform: Platform | None, choice: Choice | None, reference: Reference
) -> tuple[Descriptor, ...]:
    if platform is None:
        return index.manifests
    return (index.matching(platform, str(reference), choice),)


def _child(reference: Reference, descriptor: Descriptor, store: Store, registry: Registry) -> bytes:
    if store.has(descriptor.digest):
        return store.read(descriptor)
    raw, found = registry.manifest(reference)
    if found.size != descriptor.size or found.media_type != descriptor.media_type:
        raise ManifestError(f"{reference} is not of the size and type that its index states")
    store.put(raw, found.media_type)
    return raw


def _fetch(
    blob: Descriptor,
    beat: Callable[[], None],
    *,
    store: Store,
    registry: Registry,
    reference: Reference,
    progress: Progress,
) -> int:
    """Bring one blob; return the bytes of it that came."""
    task = progress.task(f"pulling {label(blob)}", blob.size)
    with store.resume(blob.digest, beat) as writer:
        if store.has(blob.digest):  # another process has brought it while this one waited
            task.advance(blob.size)
            task.finish()
            return 0
        if writer.size > blob.size:
            writer.restart()
        found = writer.size
        task.advance(found)
        received = 0
        while True:
            for piece in registry.pieces(reference.repository, blob, writer.size):
                beat()
                writer.write(piece)
                received += len(piece)
                task.advance(len(piece))
            if writer.commit():
                task.finish()
                return received
            if not found:
                raise wrong_blob(registry.host, reference.repository, blob)
            # A machine that lost its power may have kept the length of a file, and not its bytes.
            found = 0


def label(blob: Descriptor) -> str:
    """Return what a blob is called in a progress display: its title, or else its digest."""
    title = blob.annotations.get(TITLE, "")[:60]
    return title if title.isprintable() and title else blob.digest.short
