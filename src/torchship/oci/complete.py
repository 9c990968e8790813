"""What the store lacks of an image, brought from where it is known to be."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from torchship.amounts import counted
from torchship.digest import Descriptor
from torchship.errors import BlobMissing, RegistryError
from torchship.oci.image import held, read_image, read_one
from torchship.oci.parallel import each
from torchship.oci.pull import fetch_blobs
from torchship.oci.reference import Reference
from torchship.oci.registry.client import Registry
from torchship.oci.registry.patience import Patience
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import Progress

PATIENCE = Patience(attempts=3)
"""With repositories that may have a blob: there may be another one, and a clear error after."""


class Elsewhere:
    """Repositories that may have blobs which the store lacks, asked in their order."""

    def __init__(self, origins: Sequence[Reference], *, patience: Patience = PATIENCE) -> None:
        self.origins = tuple(dict.fromkeys(replace(each, tag=None) for each in origins))
        self.faults: list[RegistryError] = []
        """Why repositories could not be asked."""
        self._registries = {
            host: Registry(host, patience=patience)
            for host in dict.fromkeys(origin.registry for origin in self.origins)
        }

    def registry(self, origin: Reference) -> Registry:
        """Return the client of an origin's registry."""
        return self._registries[origin.registry]

    def find(self, blob: Descriptor) -> Reference | None:
        """Return the first repository that has a blob."""
        for origin in self.origins:
            try:
                if self.registry(origin).has_blob(origin.repository, blob):
                    return origin
            except RegistryError as fault:
                self.faults.append(fault)
        return None

    def missing(self, blob: Descriptor) -> BlobMissing:
        """Return the error for a blob that is nowhere."""
        places = ", ".join(origin.name for origin in self.origins)
        why = f" ({self.faults[-1].message})" if self.faults else ""
        return BlobMissing(
            f"the store lacks the blob {blob.digest}"
            + (f", and so does {places}{why}" if places else ""),
            hint="build the image here, or pull it: torchship build, torchship pull",
        )


def complete(
    store: Store,
    descriptor: Descriptor,
    *,
    platform: Platform | None,
    variant: str = "",
    progress: Progress,
) -> int:
    """Bring into the store what it lacks of an image; return the bytes of layers that came.

    ``platform`` is the one of an index that is needed, and ``variant`` the one of that, where it
    is not the first; without a platform, those are taken that the store has the documents of.
    Raises `BlobMissing` where nobody has a part, `ImageNotFound` where the index has no such
    platform or variant.
    """
    origins = store.origins.get(descriptor.digest)
    if platform is None:
        images = [read_one(store, found) for found in held(store, descriptor)]
    else:
        images = [read_image(_Reaching(store, origins), descriptor, platform, variant)]
    for image in images:
        origins += store.origins.get(image.descriptor.digest)
    blobs = {layer.digest: layer.descriptor for image in images for layer in image.layers}
    return bring(store, tuple(blobs.values()), origins, progress=progress)


def bring(
    store: Store, blobs: Sequence[Descriptor], origins: Sequence[Reference], *, progress: Progress
) -> int:
    """Bring those blobs that the store lacks from the first origin that has them."""
    lacking = [blob for blob in blobs if not store.has(blob.digest)]
    if not lacking:
        return 0
    elsewhere = Elsewhere(origins)
    places = each(lacking, lambda blob, _: elsewhere.find(blob))
    for blob, place in zip(lacking, places, strict=True):
        if place is None:
            raise elsewhere.missing(blob)
    received = 0
    for origin in dict.fromkeys(place for place in places if place is not None):
        chosen = [blob for blob, place in zip(lacking, places, strict=True) if place == origin]
        count = counted(len(chosen), "layer")
        progress.say(f"pulling {count} that the store has not from {origin.name}")
        received += fetch_blobs(
            chosen, origin, store, registry=elsewhere.registry(origin), progress=progress
        )
    return received


class _Reaching(Struct, frozen=True):
    """The documents of a store; those that it lacks come from the origins.

    A pull for one platform brings an index without the images of the others.
    """

    store: Store
    origins: Sequence[Reference]

    def read(self, descriptor: Descriptor, limit: int) -> bytes:
        try:
            return self.store.read(descriptor, limit)
        except BlobMissing:
            if not self.origins:
                raise
        elsewhere = Elsewhere(self.origins)
        for origin in elsewhere.origins:
            try:
                published = elsewhere.registry(origin).source(origin.repository)
                raw = published.read(descriptor, limit)
            except RegistryError as fault:
                elsewhere.faults.append(fault)
                continue
            self.store.put(raw, descriptor.media_type)
            return raw
        raise elsewhere.missing(descriptor)
