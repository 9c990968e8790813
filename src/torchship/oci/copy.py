"""From one repository into another, past the store: mounted within a registry, else streamed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from msgspec import Struct

from torchship.digest import Descriptor, Digest
from torchship.oci import referrers
from torchship.oci.image import read_image
from torchship.oci.reference import Reference
from torchship.oci.registry.client import Registry, wrong_blob
from torchship.oci.transfer import Sent, Transfer
from torchship.platform import Platform
from torchship.progress import Progress


def copy(
    source: Reference,
    target: Reference,
    *,
    platform: Platform | None,
    progress: Progress,
    origin: Registry | None = None,
    registry: Registry | None = None,
) -> Sent:
    """Copy an image with all its platforms, or with one, and with what refers to it.

    Manifests keep their bytes, and so the copy its digest. Nothing is stored on the way: a
    blob is read piece by piece while it is sent; what was cut off on either side goes on where
    it stopped. Raises `RegistryError`, `ManifestError`, or `ImageNotFound` for a platform that
    is not there; the target's name then means what it meant before.
    """
    reader = origin or Registry(source.registry)
    _, top = reader.manifest(source)
    if platform is not None:
        top = read_image(reader.source(source.repository), top, platform).descriptor
    near = source.registry == target.registry and source.repository != target.repository
    neighbours = (source.repository,) if near else ()
    return Transfer(
        origin=_Published(reader, source.repository),
        registry=registry or Registry(target.registry, access="pull,push"),
        reference=target,
        neighbours=lambda _: neighbours,
        progress=progress,
        verb="copying",
    ).run(top)


class _Published(Struct, frozen=True):
    """A repository as an origin."""

    registry: Registry
    repository: str

    def read(self, descriptor: Descriptor, limit: int) -> bytes:
        return self.registry.source(self.repository).read(descriptor, limit)

    def has(self, digest: Digest) -> bool:
        return self.registry.source(self.repository).has(digest)

    def pieces(self, blob: Descriptor, offset: int) -> Iterator[bytes]:
        return verified(self.registry, self.repository, blob, offset)

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        return referrers.referrers(self.registry, self.repository, subject)


def verified(registry: Registry, repository: str, blob: Descriptor, offset: int) -> Iterator[bytes]:
    """Yield a blob from an offset on; its last piece only once the digest is known to be right.

    From the middle on there is nothing to compare with: then the receiving registry's own
    check has to do, which the specification demands of it.
    """
    running = hashlib.sha256()
    held: bytes | None = None
    for piece in registry.pieces(repository, blob, offset):
        running.update(piece)
        if held is not None:
            yield held
        held = piece
    if offset == 0 and running.hexdigest() != blob.digest.hex:
        raise wrong_blob(registry.host, repository, blob)
    if held is not None:
        yield held
