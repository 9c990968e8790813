"""Manifests and indexes as they come from strangers: checked, then typed.

Source: OCI image-spec v1.1, manifest.md and image-index.md; Docker's schema 2 has the same
fields. The raw bytes are kept by the caller: nothing is encoded again here.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec

from torchship.digest import Descriptor, Digest
from torchship.errors import HostileInput, InvalidDigest
from torchship.oci.mediatypes import INDEXES, MANIFESTS, OCI_INDEX, OCI_MANIFEST

ACCEPTED = tuple(sorted(INDEXES | MANIFESTS))
"""What we ask registries for."""

_ENTRIES = 1000
"""More layers than any engine takes, more platforms than there are."""

_Size = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _Descriptor(msgspec.Struct, rename="camel"):
    media_type: str
    digest: str
    size: _Size
    annotations: dict[str, str] | None = None
    platform: dict[str, Any] | None = None
    artifact_type: str | None = None


class _Document(msgspec.Struct, rename="camel"):
    schema_version: Literal[2]
    media_type: str | None = None
    artifact_type: str | None = None
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None
    subject: _Descriptor | None = None


class _Header(msgspec.Struct, rename="camel"):
    schema_version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image, or an artifact in the shape of one."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str | None = None

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob that the manifest needs, each once, in order."""
        return tuple({each.digest: each for each in (self.config, *self.layers)}.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Several manifests (or further indexes), told apart by platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None


def parse(raw: bytes, media_type: str | None = None) -> Manifest | Index:
    """Read a manifest or an index; ``media_type`` is what its bearer says of it.

    Raises `HostileInput` with the path to the fault.
    """
    try:
        document = msgspec.json.decode(raw, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        if _is_schema_1(raw):
            raise HostileInput(
                "the manifest is of Docker's schema 1, which nobody should use any more",
                hint="push the image again with a newer Docker",
            ) from None
        raise HostileInput(f"the manifest is malformed: {fault}") from None
    kind = _kind(document, media_type)
    subject = _typed(document.subject, "subject") if document.subject else None
    if kind in INDEXES:
        return Index(
            media_type=kind, manifests=_all(document.manifests, "manifests"), subject=subject
        )
    if document.config is None:
        raise HostileInput("the manifest is malformed: config is missing")
    return Manifest(
        media_type=kind,
        config=_typed(document.config, "config"),
        layers=_all(document.layers, "layers"),
        subject=subject,
        artifact_type=document.artifact_type,
    )


def _kind(document: _Document, said: str | None) -> str:
    """Decide between manifest and index, and never let one document be both.

    image-spec, manifest.md, "mediaType": "clients SHOULD NOT use a document whose mediaType
    and content differ" in effect: what verifies as one must not run as the other.
    """
    shape = INDEXES if document.manifests is not None else MANIFESTS
    if document.manifests is not None and (document.layers is not None or document.config):
        raise HostileInput("the manifest is ambiguous: it has both manifests and layers")
    named = document.media_type
    bearer = said if said in INDEXES | MANIFESTS else None
    if named is not None and named not in INDEXES | MANIFESTS:
        raise HostileInput(f"the manifest is of a type that torchship does not know: {named!r}")
    if named is not None and bearer is not None and named != bearer:
        raise HostileInput(f"the manifest calls itself {named}, but came as {bearer}")
    kind = named or bearer or (OCI_INDEX if shape is INDEXES else OCI_MANIFEST)
    if kind not in shape:
        raise HostileInput(f"the manifest calls itself {kind}, but has the fields of another type")
    return kind


def _all(entries: list[_Descriptor] | None, name: str) -> tuple[Descriptor, ...]:
    if entries is None:
        raise HostileInput(f"the manifest is malformed: {name} is missing")
    if len(entries) > _ENTRIES:
        raise HostileInput(f"the manifest has {len(entries)} {name}: more than {_ENTRIES}")
    return tuple(_typed(entry, f"{name}[{place}]") for place, entry in enumerate(entries))


def _typed(entry: _Descriptor, place: str) -> Descriptor:
    try:
        digest = Digest.parse(entry.digest)
    except InvalidDigest as fault:
        raise HostileInput(f"the manifest is malformed: {place}.digest: {fault.message}") from None
    platform = entry.platform
    return Descriptor(
        media_type=entry.media_type,
        digest=digest,
        size=entry.size,
        annotations=MappingProxyType(entry.annotations or {}),
        # os.features is a list; what we choose by are strings.
        platform=None
        if platform is None
        else {key: value for key, value in platform.items() if isinstance(value, str)},
        artifact_type=entry.artifact_type,
    )


def _is_schema_1(raw: bytes) -> bool:
    try:
        return msgspec.json.decode(raw, type=_Header).schema_version == 1
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
