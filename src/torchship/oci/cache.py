"""Layers that published images have already, for a build that has nothing: `--cache-from`.

A manifest names, beside each layer, the key of the recipe that gave it; the config names its
diff_id. So an image can be assembled of published layers without a byte of them. Nothing of
this is verified, nor can it be without making the layer: whoever published the image is
trusted for this build, and the store's own index of layers never learns of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from torchship.digest import Descriptor, Digest
from torchship.errors import HostileInput, RegistryError
from torchship.layers.layer import GZIP, KEY, Layer
from torchship.oci import mediatypes
from torchship.oci.complete import bring
from torchship.oci.documents import ConfigObject, decode
from torchship.oci.image import Image, Source, manifests, read_one
from torchship.oci.parallel import each
from torchship.oci.reference import Reference
from torchship.oci.registry.client import ABSENT, Registry
from torchship.oci.registry.patience import Patience
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import Progress

_NOTE = re.compile(r"sha256:([0-9a-f]{64}) ([0-9]{1,18})")

_PATIENCE = Patience(attempts=2, connect=5.0, longest=10.0)
"""A build can do without: it does not wait long for a registry that is not there."""


class Taken(Struct, frozen=True, kw_only=True):
    """The layers of an image that were taken unread: their number, their size, from where.

    ``received`` counts the bytes of manifests and configs that were read for it.
    """

    layers: int
    size: int
    received: int
    holders: tuple[Reference, ...]


class Cache:
    """What some published images offer to a build. They are read when a layer is first wanted.

    ``named`` are references that the user gave, ``overwritten`` the names that the image will
    be pushed to. Those that cannot be read are told and left out: without them, the same image
    comes out, later. Of the overwritten, one that is not there yet is not worth a line.
    """

    def __init__(
        self,
        *,
        named: Sequence[Reference] = (),
        overwritten: Sequence[Reference] = (),
        platforms: Collection[Platform],
        progress: Progress,
    ) -> None:
        self._named = tuple(dict.fromkeys(named))
        self._overwritten = tuple(dict.fromkeys(overwritten))
        self._platforms = frozenset(platforms)
        self._progress = progress
        self._offers: tuple[_Offer, ...] | None = None

    def layers(self) -> Mapping[Digest, Layer]:
        """Return the layers that are offered, by the key of their recipe; the first offer counts.

        Their annotations are not to be used: they are the publisher's words.
        """
        found: dict[Digest, Layer] = {}
        for offer in self._read():
            found = {**offer.layers, **found}
        return found

    def has(self, store: Store, layer: Layer) -> bool:
        """Tell whether a layer need not be fetched: it is in the store, or in a published image."""
        return store.has(layer.digest) or any(layer.digest in o.digests for o in self._read())

    def note(self, store: Store, image: Digest, layers: Sequence[Layer]) -> Taken:
        """Note in the store where the layers that it lacks of an image were published."""
        absent = {layer.digest: layer.size for layer in layers if not store.has(layer.digest)}
        holders = [o.reference for o in self._offers or () if not o.digests.isdisjoint(absent)]
        if holders:
            store.origins.add(image, holders)
        return Taken(
            layers=len(absent),
            size=sum(absent.values()),
            received=sum(offer.received for offer in self._offers or ()),
            holders=tuple(holders),
        )

    def bring(self, store: Store, layers: Sequence[Layer]) -> None:
        """Bring layers into the store that are needed to make others: the base, for its Python."""
        origins = [offer.reference for offer in self._offers or ()]
        blobs = [layer.descriptor for layer in layers]
        bring(store, blobs, origins, progress=self._progress)

    def _read(self) -> tuple[_Offer, ...]:
        if self._offers is None:
            references = tuple(dict.fromkeys((*self._named, *self._overwritten)))
            self._offers = tuple(each(references, self._offer))
        return self._offers

    def _offer(self, reference: Reference, _: Callable[[], None]) -> _Offer:
        try:
            return _read(reference, self._platforms)
        except (RegistryError, HostileInput) as fault:
            absent = isinstance(fault, RegistryError) and fault.status in ABSENT
            if not absent or reference in self._named:
                self._progress.say(f"nothing is taken from {reference.familiar}: {fault.message}")
        return _Offer(reference=reference)


class _Offer(Struct, frozen=True, kw_only=True):
    """What one reference has: layers by key, the digests of all its layers."""

    reference: Reference
    layers: Mapping[Digest, Layer] = field(default_factory=dict)
    digests: frozenset[Digest] = frozenset()
    received: int = 0


class _Once(Struct):
    """A source that is asked for each document once; counts the bytes."""

    source: Source
    seen: dict[Digest, bytes] = field(default_factory=dict)

    def read(self, descriptor: Descriptor, limit: int) -> bytes:
        if descriptor.digest not in self.seen:
            self.seen[descriptor.digest] = self.source.read(descriptor, limit)
        return self.seen[descriptor.digest]


def _read(reference: Reference, platforms: Collection[Platform]) -> _Offer:
    registry = Registry(reference.registry, patience=_PATIENCE)
    raw, top = registry.manifest(reference)
    source = _Once(registry.source(reference.repository), {top.digest: raw})
    names = {(platform.os, platform.architecture) for platform in platforms}
    images = [
        read_one(source, found)
        for found in manifests(source, top)
        if found.platform is None or (found.platform["os"], found.platform["architecture"]) in names
    ]
    layers: dict[Digest, Layer] = {}
    for image in images:
        layers = {**_keyed(image), **layers}
    return _Offer(
        reference=reference,
        layers=layers,
        digests=frozenset(layer.digest for image in images for layer in image.layers),
        received=sum(len(document) for document in source.seen.values()),
    )


def _keyed(image: Image) -> dict[Digest, Layer]:
    """Return the layers of an image that say which recipe gave them."""
    found = {}
    for layer, (key, unpacked_size) in zip(image.layers, _keys(image), strict=True):
        # Only what we write ourselves: one gzip layer, whichever family names it.
        if key is None or layer.media_type not in (GZIP, mediatypes.DOCKER_GZIP):
            continue
        found[key] = replace(
            layer, media_type=GZIP, unpacked_size=layer.unpacked_size or unpacked_size
        )
    return found


def _keys(image: Image) -> list[tuple[Digest | None, int]]:
    """Return each layer's key and unpacked size: from the manifest, or else from the config.

    Docker's manifests have no annotations, and other tools drop them.
    """
    noted = decode(image.raw_config, ConfigObject, str(image.config.digest)).derived_layers or ()
    spare = [_note(text) for text in noted] if len(noted) == len(image.layers) else None
    return [
        _note(f"{layer.annotations[KEY]} {layer.unpacked_size}")
        if KEY in layer.annotations
        else (spare[place] if spare else (None, 0))
        for place, layer in enumerate(image.layers)
    ]


def _note(text: str) -> tuple[Digest | None, int]:
    """Read a key and an unpacked size, as `torchship.oci.assemble` notes them in a config."""
    noted = _NOTE.fullmatch(text)
    return (Digest(noted[1]), int(noted[2])) if noted else (None, 0)
