"""From the store into a registry; layers that the store took by digest come from their origin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from torchship.digest import Descriptor, Digest, chunks
from torchship.oci import artifact
from torchship.oci.complete import Elsewhere
from torchship.oci.copy import verified
from torchship.oci.image import manifests
from torchship.oci.reference import Reference
from torchship.oci.registry import Registry
from torchship.oci.store import Store
from torchship.oci.transfer import Sent, Transfer
from torchship.progress import Progress


def push(
    store: Store,
    descriptor: Descriptor,
    reference: Reference,
    *,
    mount_from: Sequence[Reference] = (),
    progress: Progress,
    registry: Registry | None = None,
    presumed: frozenset[Digest] | None = None,
) -> Sent:
    """Send an image, or an index with all its images, and name it ``reference`` there.

    Blobs that the store lacks are fine where the registry has them, or one of the repositories
    that the image's layers were taken from. ``mount_from`` are images that may share blobs:
    those of the same registry are mounted from. What the store holds about the image goes with
    it. The name changes last, after all it needs. The store notes that the image is there now.
    ``presumed`` are the blobs that the name stood for when it was last asked.
    """
    origins = known_origins(store, descriptor)
    neighbours = dict.fromkeys(
        other.repository
        for other in (*origins, *mount_from)
        if other.registry == reference.registry and other.repository != reference.repository
    )
    sent = Transfer(
        origin=_Stored(store, Elsewhere(origins)),
        registry=registry or writable(reference),
        reference=reference,
        neighbours=tuple(neighbours),
        progress=progress,
        verb="pushing",
        presumed=presumed,
    ).run(descriptor)
    store.origins.add(descriptor.digest, [reference])
    return sent


def writable(reference: Reference) -> Registry:
    """Return the registry of a name, as one who may push to it."""
    return Registry(reference.registry, access="pull,push")


def known_origins(store: Store, descriptor: Descriptor) -> tuple[Reference, ...]:
    """Return the repositories noted for an image, and for the images of an index."""
    digests = [descriptor.digest, *(each.digest for each in manifests(store, descriptor))]
    return tuple(dict.fromkeys(o for digest in digests for o in store.origins.get(digest)))


class _Stored(Struct, frozen=True):
    """The store as an origin."""

    store: Store
    elsewhere: Elsewhere

    def read(self, descriptor: Descriptor, limit: int) -> bytes:
        return self.store.read(descriptor, limit)

    def has(self, digest: Digest) -> bool:
        return self.store.has(digest)

    def pieces(self, blob: Descriptor, offset: int) -> Iterator[bytes]:
        if self.store.has(blob.digest):
            with self.store.open_blob(blob.digest) as stream:
                stream.seek(offset)
                yield from chunks(stream)
            return
        origin = self.elsewhere.find(blob)
        if origin is None:
            raise self.elsewhere.missing(blob)
        yield from verified(self.elsewhere.registry(origin), origin.repository, blob, offset)

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        return artifact.referrers(self.store, subject)
