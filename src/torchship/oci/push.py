"""From the store into a registry; layers that the store took by digest come from their origin."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from torchship.digest import Descriptor, Digest, chunks
from torchship.errors import HostileInput, StoreError
from torchship.oci import artifact
from torchship.oci.complete import Elsewhere
from torchship.oci.copy import verified
from torchship.oci.documents import MANIFEST_LIMIT
from torchship.oci.image import held, manifests
from torchship.oci.manifest import Index, Manifest, parse
from torchship.oci.reference import Reference
from torchship.oci.registry.client import Registry
from torchship.oci.store import Store
from torchship.oci.transfer import Sent, Transfer
from torchship.progress import Progress


def push(
    store: Store,
    descriptor: Descriptor,
    reference: Reference,
    *,
    progress: Progress,
    registry: Registry | None = None,
) -> Sent:
    """Send an image, or an index with all its images, and name it ``reference`` there.

    Blobs that the store lacks are fine where the registry has them, or one of the repositories
    that the image's layers were taken from. What the store knows to be in another repository of
    the registry is mounted. What the store holds about the image goes with it. The name changes
    last, after all it needs. The store notes that the image is there now.
    """
    sent = Transfer(
        origin=_Stored(store, Elsewhere(known_origins(store, descriptor))),
        registry=registry or Registry(reference.registry, access="pull,push"),
        reference=reference,
        neighbours=_Neighbours(store, descriptor, reference),
        progress=progress,
        verb="pushing",
    ).run(descriptor)
    store.origins.add(descriptor.digest, [reference])
    return sent


class _Neighbours:
    """Where a blob may be mounted from: what every edit makes anew is in no other repository.

    The repositories that the image's layers were taken from may have any blob; of those that
    another image of the store was pushed to or pulled from it is known what they have.
    Thread-safe.
    """

    def __init__(self, store: Store, image: Descriptor, reference: Reference) -> None:
        self._store = store
        self._reference = reference
        self._sources = self._near(known_origins(store, image))
        self._lock = threading.Lock()
        self._holders: dict[Digest, list[str]] | None = None

    def __call__(self, digest: Digest) -> Sequence[str]:
        with self._lock:
            if self._holders is None:
                self._holders = self._read()
        return tuple(dict.fromkeys((*self._sources, *self._holders.get(digest, ()))))

    def _near(self, origins: Sequence[Reference]) -> tuple[str, ...]:
        """Return the other repositories of the same registry."""
        here = self._reference
        return tuple(
            each.repository
            for each in origins
            if each.registry == here.registry and each.repository != here.repository
        )

    def _read(self) -> dict[Digest, list[str]]:
        found: dict[Digest, list[str]] = {}
        for image in {each.descriptor.digest: each for each in self._store.images()}.values():
            try:
                repositories = self._near(known_origins(self._store, image.descriptor))
                if not repositories:
                    continue
                documents = [self._document(each) for each in held(self._store, image.descriptor)]
            except (StoreError, HostileInput):
                continue  # damaged here, and no matter: its blobs are sent
            for document in documents:
                for blob in document.blobs if isinstance(document, Manifest) else ():
                    found.setdefault(blob.digest, []).extend(repositories)
        return found

    def _document(self, descriptor: Descriptor) -> Manifest | Index:
        raw = self._store.read(descriptor, MANIFEST_LIMIT)
        return parse(raw, descriptor.media_type, str(descriptor.digest))


def known_origins(store: Store, descriptor: Descriptor) -> tuple[Reference, ...]:
    """Return the repositories noted for an image, and for the images of an index."""
    digests = [descriptor.digest, *(each.digest for each in manifests(store, descriptor))]
    return tuple(dict.fromkeys(o for digest in digests for o in store.origins.get(digest)))


class _Stored:
    """The store as an origin."""

    def __init__(self, store: Store, elsewhere: Elsewhere) -> None:
        self._store = store
        self._elsewhere = elsewhere

    @cached_property
    def _attached(self) -> Mapping[Digest, tuple[Descriptor, ...]]:
        return artifact.attached(self._store)  # reads every manifest of the store: once is enough

    def read(self, descriptor: Descriptor, limit: int) -> bytes:
        return self._store.read(descriptor, limit)

    def has(self, digest: Digest) -> bool:
        return self._store.has(digest)

    def pieces(self, blob: Descriptor, offset: int) -> Iterator[bytes]:
        if self._store.has(blob.digest):
            with self._store.open_blob(blob.digest) as stream:
                stream.seek(offset)
                yield from chunks(stream)
            return
        origin = self._elsewhere.find(blob)
        if origin is None:
            raise self._elsewhere.missing(blob)
        yield from verified(self._elsewhere.registry(origin), origin.repository, blob, offset)

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        return self._attached.get(subject, ())
