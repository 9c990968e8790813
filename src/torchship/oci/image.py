"""An image as engines need it, read from a store or a registry, trusting nothing in it.

Sources: OCI image-spec v1.1, image-index.md, manifest.md, config.md; Docker's schema 2.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct, field

from torchship.digest import Descriptor, Digest
from torchship.errors import ImageNotFound, InvalidDigest, ManifestError
from torchship.layers.layer import Layer
from torchship.oci import mediatypes
from torchship.oci import variant as variants
from torchship.oci.assemble import UNPACKED_SIZE
from torchship.oci.documents import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    ConfigObject,
    ManifestObject,
    ProcessObject,
    decode,
    read_index,
    read_manifest,
)
from torchship.platform import Platform

_WIDEST = 1000  # manifests of one reference
_MOST_LAYERS = 1000


class Source(Protocol):
    """Where documents are read from: a store, or a registry."""

    def read(self, descriptor: Descriptor, limit: int) -> bytes:
        """Return the raw bytes: of the stated digest and size, and no more than ``limit``."""


class Image(Struct, frozen=True, kw_only=True):
    """One platform's image. ``descriptor`` is its manifest's; layers are from the bottom up.

    ``raw_manifest`` and ``raw_config`` are the bytes that came, which the digests are of.
    """

    platform: Platform
    descriptor: Descriptor
    config: Descriptor
    layers: tuple[Layer, ...]
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    workdir: str = "/"
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    created: str | None = None
    raw_manifest: bytes = b""
    raw_config: bytes = b""

    @property
    def variant(self) -> str:
        """The build of torch that it is one of several for, as ``cu130``; empty where it is not."""
        return variants.of(self)

    @property
    def size(self) -> int:
        """Bytes of the layers, compressed."""
        return sum(layer.size for layer in self.layers)


class Holding(Source, Protocol):
    """A source that tells what it has: a store."""

    def has(self, digest: Digest) -> bool:
        """Tell whether a blob is there, unharmed."""


def read_image(
    source: Source, descriptor: Descriptor, platform: Platform, variant: str = ""
) -> Image:
    """Read the image that a manifest or index holds for a platform: of a variant, or the first.

    ``variant`` is one's name. Raises `ImageNotFound` where it holds none, and
    `ManifestError` for documents that break their specification.
    """
    offered = []
    others = []
    for found in manifests(source, descriptor):
        if found.platform is None or variants.is_for(found.platform, platform):
            noted = variants.noted(found)
            if variant and noted not in ("", variant):
                others.append(noted)
                continue
            image = read_one(source, found)
            # manifest.md: platform is optional there; the config always says.
            if image.platform == platform and variant in ("", image.variant):
                return image
            if image.platform == platform:
                others.append(image.variant)
            offered.append(str(image.platform))
        else:
            offered.append(f"{found.platform['os']}/{found.platform['architecture']}")
    if others:
        held = ", ".join(name for name in others if name) or "no variants"
        raise ImageNotFound(
            f"{descriptor.digest} holds no variant {variant} for {platform}: it has {held}",
            hint="choose one of those, or leave --variant out",
        )
    raise ImageNotFound(
        f"{descriptor.digest} holds no image for {platform}, "
        f"only for {', '.join(sorted(set(offered))) or 'no platform at all'}",
        hint=f"build it with `--platform {platform}`, or choose one of those platforms",
    )


def manifests(source: Source, descriptor: Descriptor) -> tuple[Descriptor, ...]:
    """Return the image manifests below a descriptor, in the order of its index, each once.

    What is attached to an image inside its index (attestations) is no image, and left out.
    """
    if descriptor.media_type not in mediatypes.MANIFESTS | mediatypes.INDEXES:
        raise ManifestError(f"{descriptor.digest} is {descriptor.media_type}, which is no image")
    found: list[Descriptor] = []
    seen: set[Digest] = set()
    waiting = [descriptor]
    while waiting:
        current = waiting.pop()
        # Indexes may hold indexes; each is read once, however often it is named.
        if current.digest in seen or _is_attestation(current):
            continue
        seen.add(current.digest)
        if len(seen) > _WIDEST:
            raise ManifestError(f"{descriptor.digest} holds more than {_WIDEST} manifests")
        if current.media_type in mediatypes.MANIFESTS:
            found.append(current)
        elif current.media_type in mediatypes.INDEXES:
            waiting.extend(reversed(tuple(children(source, current))))
    return tuple(found)


def held(store: Holding, descriptor: Descriptor) -> tuple[Descriptor, ...]:
    """Return those of `manifests` that a store has.

    A pull for one platform brings the whole index, but not its other images.
    """
    return tuple(
        found
        for found in manifests(store, descriptor)
        if found.digest == descriptor.digest or store.has(found.digest)
    )


def children(source: Source, descriptor: Descriptor) -> Iterator[Descriptor]:
    """Yield what a manifest or index names directly: manifests; or config and layers.

    A ``subject`` is not among them: a referrer does not keep what it refers to. Anything else
    names nothing. Raises `ManifestError` for a document that is not one.
    """
    where = str(descriptor.digest)
    if descriptor.media_type in mediatypes.INDEXES:
        raw = source.read(descriptor, MANIFEST_LIMIT)
        found = read_index(raw, descriptor.media_type, f"index {where}")
        for place, child in enumerate(found.manifests):
            yield child.checked(f"index {where}: manifests[{place}]")
    elif descriptor.media_type in mediatypes.MANIFESTS:
        raw = source.read(descriptor, MANIFEST_LIMIT)
        manifest = read_manifest(raw, descriptor.media_type, f"manifest {where}")
        yield manifest.config.checked(f"manifest {where}: config")
        for place, child in enumerate(manifest.layers):
            yield child.checked(f"manifest {where}: layers[{place}]")


def read_one(source: Source, descriptor: Descriptor) -> Image:
    """Read the image of one manifest, whatever its platform; raises `ManifestError`."""
    where = f"manifest {descriptor.digest}"
    raw_manifest = source.read(descriptor, MANIFEST_LIMIT)
    manifest = read_manifest(raw_manifest, descriptor.media_type, where)
    config = manifest.config.checked(f"{where}: config")
    if config.media_type not in mediatypes.CONFIGS:
        raise ManifestError(
            f"{where} is no image, but an artifact of type "
            f"{(manifest.artifact_type or config.media_type)[:200]!r}"
        )
    raw_config = source.read(config, CONFIG_LIMIT)
    document = decode(raw_config, ConfigObject, f"config {config.digest}")
    process = document.config or ProcessObject()
    _check_strings(process, f"config {config.digest}")
    return Image(
        platform=Platform(document.os, document.architecture),
        descriptor=descriptor,
        config=config,
        layers=_layers(manifest, document, where),
        command=tuple(process.cmd or ()),
        entrypoint=tuple(process.entrypoint or ()),
        environment=_environment(process.env or []),
        workdir=_workdir(process.working_dir, f"config {config.digest}"),
        user=process.user or "",
        labels=MappingProxyType(process.labels or {}),
        created=document.created,
        raw_manifest=raw_manifest,
        raw_config=raw_config,
    )


def _layers(manifest: ManifestObject, config: ConfigObject, where: str) -> tuple[Layer, ...]:
    # config.md, rootfs: "diff_ids: an array of layer content hashes, in order from first to last"
    diff_ids = config.rootfs.diff_ids or []
    if config.rootfs.type != "layers":
        raise ManifestError(f"{where}: rootfs.type is {config.rootfs.type!r}, not 'layers'")
    if len(diff_ids) != len(manifest.layers):
        raise ManifestError(
            f"{where} has {len(manifest.layers)} layers and its config names {len(diff_ids)}"
        )
    if len(diff_ids) > _MOST_LAYERS:
        raise ManifestError(f"{where} has {len(diff_ids)} layers, more than {_MOST_LAYERS}")
    layers = []
    for place, (described, diff_id) in enumerate(zip(manifest.layers, diff_ids, strict=True)):
        layer = described.checked(f"{where}: layers[{place}]")
        if layer.media_type not in mediatypes.COMPRESSION:
            raise ManifestError(
                f"{where}: layers[{place}] is {layer.media_type}, which torchship does not read",
                hint="it reads tar, gzip and zstd layers: convert the image with skopeo, "
                "or ask its publisher for one",
            )
        try:
            checked = Digest.parse(diff_id)
        except InvalidDigest as error:
            raise ManifestError(f"{where}: diff_ids[{place}]: {error.message}") from None
        layers.append(
            Layer(
                digest=layer.digest,
                diff_id=checked,
                size=layer.size,
                unpacked_size=_count(layer.annotations.get(UNPACKED_SIZE, "")),
                media_type=layer.media_type,
                annotations=layer.annotations,
            )
        )
    return tuple(layers)


def _count(text: str) -> int:
    """Read the size that a layer is said to unpack to; 0 where that is not known."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _environment(entries: list[str]) -> Mapping[str, str]:
    # config.md, Env: "Entries are in the format of VARNAME=VARVALUE"; the last one counts.
    return MappingProxyType(
        {name: value for name, _, value in (entry.partition("=") for entry in entries) if name}
    )


def _workdir(text: str | None, where: str) -> str:
    if not text:
        return "/"
    if not text.startswith("/"):
        raise ManifestError(f"{where}: WorkingDir {text!r} is not an absolute path")
    # as Docker takes it: "/.." is "/", and no engine of ours has to think of a way up
    return "/" + posixpath.normpath(text).lstrip("/")


def _check_strings(process: ProcessObject, where: str) -> None:
    """Refuse NUL: no program can be started with one in its arguments or environment."""
    texts = [*(process.cmd or ()), *(process.entrypoint or ()), *(process.env or ())]
    texts += [process.working_dir or "", process.user or ""]
    if any("\0" in text for text in texts):
        raise ManifestError(f"{where} has a zero byte in a string")


def _is_attestation(descriptor: Descriptor) -> bool:
    # BuildKit's convention: what describes another manifest of the index runs nowhere.
    return descriptor.platform is not None and descriptor.platform["os"] == "unknown"
