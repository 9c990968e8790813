"""Manifests, indexes and configs as they come from outside: sized, typed, and never trusted.

The raw bytes are what is hashed and kept; these are only readings of them.

Sources: OCI image-spec v1.1, manifest.md, image-index.md, config.md, descriptor.md; Docker's
image manifest version 2, schema 2, which has the same fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, TypeVar

import msgspec

from torchship.digest import Descriptor, Digest
from torchship.errors import InvalidDigest, ManifestError
from torchship.oci import mediatypes

MANIFEST_LIMIT = 4 << 20
"""Bytes of a manifest or an index: what distribution-spec asks a registry to accept at least."""

CONFIG_LIMIT = 8 << 20
"""Bytes of a config."""

DERIVED_LAYERS = "dev.torchship.layers"
"""A field of torchship's own in configs: what each layer was derived from (see `assemble`)."""

_Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_SchemaVersion = Annotated[int, msgspec.Meta(ge=2, le=2)]
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"  # RFC 6838, section 4.2
_MediaType = Annotated[str, msgspec.Meta(pattern=rf"^{_NAME}/{_NAME}\Z")]

_Document = TypeVar("_Document")


class PlatformObject(msgspec.Struct, frozen=True, kw_only=True):
    """The ``platform`` of an index entry."""

    architecture: str
    os: str
    variant: str | None = None


class DescriptorObject(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A descriptor, before its digest is checked."""

    media_type: _MediaType
    digest: str
    size: _Size
    annotations: dict[str, str] | None = None
    platform: PlatformObject | None = None
    artifact_type: str | None = None

    def checked(self, where: str) -> Descriptor:
        """Return the descriptor; raise `ManifestError` for a digest that is not sha256."""
        try:
            digest = Digest.parse(self.digest)
        except InvalidDigest as error:
            raise ManifestError(f"{where}: {error.message}") from None
        return Descriptor(
            media_type=self.media_type,
            digest=digest,
            size=self.size,
            annotations=MappingProxyType(self.annotations or {}),
            platform=_platform(self.platform),
            artifact_type=self.artifact_type or None,
        )


class ManifestObject(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An image manifest, or an artifact's."""

    schema_version: _SchemaVersion
    config: DescriptorObject
    layers: list[DescriptorObject]
    media_type: str | None = None
    artifact_type: str | None = None
    subject: DescriptorObject | None = None
    annotations: dict[str, str] | None = None
    manifests: object = None


class IndexObject(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An image index."""

    schema_version: _SchemaVersion
    manifests: list[DescriptorObject]
    media_type: str | None = None
    artifact_type: str | None = None
    subject: DescriptorObject | None = None
    annotations: dict[str, str] | None = None
    layers: object = None
    config: object = None


class ProcessObject(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The ``config`` of a config: what is started, and how."""

    user: str | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None
    volumes: dict[str, object] | None = None
    exposed_ports: dict[str, object] | None = None
    stop_signal: str | None = None


class RootObject(msgspec.Struct, frozen=True, kw_only=True):
    """The ``rootfs`` of a config."""

    type: str
    diff_ids: list[str] | None = None


class HistoryObject(msgspec.Struct, frozen=True, kw_only=True):
    """One step that made the image."""

    created: str | None = None
    created_by: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class ConfigObject(msgspec.Struct, frozen=True, kw_only=True):
    """An image's config."""

    architecture: str
    os: str
    rootfs: RootObject
    variant: str | None = None
    created: str | None = None
    config: ProcessObject | None = None
    history: list[HistoryObject] | None = None
    derived_layers: list[str] | None = msgspec.field(name=DERIVED_LAYERS, default=None)


def read_manifest(raw: bytes, media_type: str, where: str) -> ManifestObject:
    """Read a manifest that was described as ``media_type``; ``where`` names it in errors."""
    manifest = decode(raw, ManifestObject, where)
    _agree(manifest.media_type, media_type, where)
    if manifest.manifests is not None:
        raise ManifestError(f"{where} has both layers and manifests: it could be read two ways")
    return manifest


def read_index(raw: bytes, media_type: str, where: str) -> IndexObject:
    """Read an index that was described as ``media_type``; ``where`` names it in errors."""
    index = decode(raw, IndexObject, where)
    _agree(index.media_type, media_type, where)
    if index.layers is not None or index.config is not None:
        raise ManifestError(f"{where} has both layers and manifests: it could be read two ways")
    return index


def decode(raw: bytes, kind: type[_Document], where: str) -> _Document:
    """Decode JSON into a struct; raise `ManifestError` with the path to the fault."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ManifestError(f"{where} is not what its media type says: {error}") from None
    except RecursionError:
        raise ManifestError(f"{where} is nested too deeply") from None


def _agree(stated: str | None, described: str, where: str) -> None:
    # manifest.md, mediaType: "when used, this field MUST contain the media type" it is sent as.
    if stated and stated != described:
        raise ManifestError(f"{where} is described as {described} and calls itself {stated}")
    if stated is None and described in (mediatypes.DOCKER_MANIFEST, mediatypes.DOCKER_INDEX):
        raise ManifestError(f"{where} does not state its media type, as Docker's schema 2 demands")


def _platform(platform: PlatformObject | None) -> Mapping[str, str] | None:
    if platform is None:
        return None
    values = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        values["variant"] = platform.variant
    return MappingProxyType(values)
