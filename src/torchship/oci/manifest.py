"""A manifest or an index, whichever came: the reading that pull, push and choice share.

Source: OCI image-spec v1.1, manifest.md and image-index.md. The raw bytes stay with the caller.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from torchship.digest import Descriptor
from torchship.errors import ManifestError
from torchship.oci import variant
from torchship.oci.documents import DescriptorObject, decode, read_index, read_manifest
from torchship.oci.mediatypes import INDEXES, MANIFESTS, OCI_INDEX, OCI_MANIFEST
from torchship.platform import Platform

ACCEPTED = tuple(sorted(INDEXES | MANIFESTS))
"""What we ask registries for."""


class _Peek(msgspec.Struct, rename="camel"):
    schema_version: int
    media_type: str | None = None
    manifests: msgspec.Raw = msgspec.Raw()


class Manifest(Struct, frozen=True, kw_only=True):
    """One image, or an artifact in the shape of one."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob that the manifest needs, each once, in order."""
        return tuple({each.digest: each for each in (self.config, *self.layers)}.values())


class Index(Struct, frozen=True, kw_only=True):
    """Several manifests (or further indexes), told apart by platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None

    def matching(
        self, platform: Platform, where: str, choice: variant.Choice | None = None
    ) -> Descriptor:
        """Return the manifest for a platform that ``choice`` takes of its variants, or the first.

        image-index.md: "If multiple manifests match a client or runtime's requirements, the
        first matching entry SHOULD be used." Raises `ManifestError` if there is none.
        """
        names = variant.offered(self.manifests, platform)
        name = choice(names) if choice and names else ""
        for entry in self.manifests:
            if variant.is_for(entry.platform, platform) and name in ("", variant.noted(entry)):
                return entry
        if name:
            raise ManifestError(
                f"{where} holds no variant {name} for {platform}",
                hint=f"it holds: {', '.join(names)}",
            )
        offered_names = sorted(
            {
                f"{entry.platform.get('os')}/{entry.platform.get('architecture')}"
                for entry in self.manifests
                if entry.platform is not None and entry.platform.get("os") != "unknown"
            }
        )
        raise ManifestError(
            f"{where} holds no image for {platform}",
            hint=f"it holds: {', '.join(offered_names) or 'nothing for any platform'}",
        )


def stated(raw: bytes, where: str) -> str | None:
    """Return what a manifest or an index says that it is; None where it says nothing."""
    return decode(raw, _Peek, where).media_type or None


def parse(raw: bytes, media_type: str, where: str) -> Manifest | Index:
    """Read a manifest or an index, whatever type its bearer gave, or none that is known.

    Raises `ManifestError` that begins with ``where``.
    """
    peek = decode(raw, _Peek, where)
    if peek.schema_version == 1:
        raise ManifestError(
            f"{where} is of Docker's schema 1, which torchship does not read",
            hint="push the image again with a newer Docker",
        )
    # Some registries serve every manifest as text/plain or application/json.
    known = media_type if media_type in INDEXES | MANIFESTS else peek.media_type
    kind = known or (OCI_INDEX if bytes(peek.manifests) not in (b"", b"null") else OCI_MANIFEST)
    if kind in INDEXES:
        index = read_index(raw, kind, where)
        return Index(
            media_type=kind,
            manifests=_all(index.manifests, f"{where}: manifests"),
            subject=index.subject.checked(f"{where}: subject") if index.subject else None,
        )
    if kind not in MANIFESTS:
        raise ManifestError(f"{where} is neither a manifest nor an index, but {kind[:200]!r}")
    manifest = read_manifest(raw, kind, where)
    return Manifest(
        media_type=kind,
        config=manifest.config.checked(f"{where}: config"),
        layers=_all(manifest.layers, f"{where}: layers"),
        subject=manifest.subject.checked(f"{where}: subject") if manifest.subject else None,
    )


def _all(entries: list[DescriptorObject], where: str) -> tuple[Descriptor, ...]:
    return tuple(entry.checked(f"{where}[{place}]") for place, entry in enumerate(entries))
