"""What is attached to an image of the store: artifacts, each a manifest that names its subject.

A record, a signature, a list of packages: small blobs under a manifest without a config of its
own, kept in ``index.json`` without a name for as long as the subject is kept.

Sources: OCI image-spec v1.1, manifest.md ("Guidelines for Artifact Usage", "Guidance for an
Empty Descriptor"); the same fields travel through the referrers API of distribution-spec v1.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from torchship import canonical
from torchship.digest import Descriptor, Digest
from torchship.errors import BlobDamaged, BlobMissing, HostileInput, ManifestError
from torchship.layers.layer import TITLE
from torchship.oci import mediatypes
from torchship.oci.documents import (
    MANIFEST_LIMIT,
    IndexObject,
    ManifestObject,
    decode,
    read_manifest,
)
from torchship.oci.image import Source
from torchship.oci.store import Store

_NONE: Mapping[str, str] = MappingProxyType({})

_LARGEST = 64 << 20
"""Bytes of one referrer: records and signatures are small; nobody asked for an image's weight."""

_LONGEST = 64 << 10
"""Characters of a referrer's annotations, which every registry's list of referrers repeats."""

_LONGEST_TYPE = 255
"""Characters of a media type (RFC 6838, section 4.2)."""

EMPTY = Descriptor(media_type=mediatypes.OCI_EMPTY, digest=Digest.of(b"{}"), size=2)
"""The descriptor of ``{}``: what stands where a manifest must name something."""


class Content(NamedTuple):
    """One blob of an artifact: its bytes, what they are, and a file name for people."""

    data: bytes
    media_type: str
    title: str


class Artifact(Struct, frozen=True, kw_only=True):
    """An artifact as it was read.

    ``descriptor`` is its manifest's as a registry lists it, with the manifest's own type and
    annotations; ``raw`` the bytes of the manifest.
    """

    descriptor: Descriptor
    artifact_type: str
    subject: Digest | None
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    raw: bytes

    @property
    def size(self) -> int:
        """Bytes of the manifest and its blobs, by its own word."""
        return len(self.raw) + sum(blob.size for blob in (self.config, *self.layers))


def attach(
    store: Store,
    subject: Descriptor,
    artifact_type: str,
    layers: Sequence[Content] = (),
    annotations: Mapping[str, str] = _NONE,
) -> Descriptor:
    """Write an artifact about ``subject``, which the store keeps as long as the subject.

    The same content attached again is the same manifest, and there once. The descriptor that
    is returned carries type and annotations, as a registry's list of referrers does.
    """
    store.put(b"{}", mediatypes.OCI_EMPTY)
    parts = [_stored(store, layer).as_json() for layer in layers]
    # manifest.md: "If an artifact has no blobs, a layer of the empty descriptor SHOULD be used."
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": EMPTY.as_json(),
        "layers": parts or [EMPTY.as_json()],
        "subject": Descriptor(
            media_type=subject.media_type, digest=subject.digest, size=subject.size
        ).as_json(),
    }
    if annotations:
        document["annotations"] = dict(annotations)
    written = store.put(canonical.encode(document), mediatypes.OCI_MANIFEST)
    described = replace(
        written, artifact_type=artifact_type, annotations=MappingProxyType(dict(annotations))
    )
    store.attach(described)
    return described


def referrers(
    store: Store, subject: Digest, artifact_type: str | None = None
) -> tuple[Descriptor, ...]:
    """Return what the store holds about ``subject``, of one type where asked for, oldest first."""
    found = attached(store).get(subject, ())
    return tuple(each for each in found if artifact_type in (None, each.artifact_type))


def attached(store: Store) -> Mapping[Digest, tuple[Descriptor, ...]]:
    """Return all that the store holds about manifests, by subject, oldest first."""
    found: dict[Digest, tuple[Descriptor, ...]] = {}
    for entry in store.entries():
        subject = subject_of(store, entry.descriptor)
        if subject is not None:
            described = entry.descriptor
            # What index.json says of it is the index's affair; registries list its own words.
            if described.media_type in mediatypes.MANIFESTS:
                described = read(store, described).descriptor
            found[subject] = (*found.get(subject, ()), described)
    return found


def attached_to(store: Store, subjects: Iterable[Digest]) -> tuple[Descriptor, ...]:
    """Return what the store holds about any of these manifests, and about what that is, each once.

    In the order of the subjects, what refers to a referrer after it.
    """
    all_of_them = attached(store)
    found: dict[Digest, Descriptor] = {}
    waiting = list(subjects)
    for subject in waiting:
        for each in all_of_them.get(subject, ()):
            if each.digest not in found:
                found[each.digest] = each
                waiting.append(each.digest)
    return tuple(found.values())


def about(subject: Digest, source: Source, descriptor: Descriptor) -> Artifact:
    """Read an artifact that a stranger's list names as one that refers to ``subject``.

    Raises `HostileInput` for one that is no artifact, refers to something else, is larger than
    64 MiB or has annotations of more than 64 KiB, and what the source raises.
    """
    if descriptor.media_type not in mediatypes.MANIFESTS:
        raise HostileInput(f"it is {descriptor.media_type}")
    found = read(source, descriptor)
    if found.subject != subject:
        raise HostileInput(f"it says that it refers to {found.subject or 'nothing'}")
    if found.size > _LARGEST:
        raise HostileInput(f"it is larger than {_LARGEST >> 20} MiB")
    noted = sum(len(name) + len(value) for name, value in found.annotations.items())
    if len(found.artifact_type) > _LONGEST_TYPE:
        raise HostileInput(f"its type is longer than {_LONGEST_TYPE} characters")
    if noted > _LONGEST:
        raise HostileInput(f"its annotations are longer than {_LONGEST >> 10} KiB")
    return found


def read(source: Source, descriptor: Descriptor) -> Artifact:
    """Read an artifact's manifest; its blobs are read by their descriptors.

    Raises `ManifestError` for what is no manifest, and what the source raises.
    """
    where = f"artifact {descriptor.digest}"
    raw = source.read(descriptor, MANIFEST_LIMIT)
    manifest = read_manifest(raw, descriptor.media_type, where)
    config = manifest.config.checked(f"{where}: config")
    # "If artifactType is not set, the config's media type is the artifact's type."
    artifact_type = manifest.artifact_type or config.media_type
    annotations = MappingProxyType(manifest.annotations or {})
    return Artifact(
        descriptor=replace(
            descriptor, artifact_type=artifact_type, annotations=annotations, platform=None
        ),
        artifact_type=artifact_type,
        subject=manifest.subject.checked(f"{where}: subject").digest if manifest.subject else None,
        config=config,
        layers=tuple(
            layer.checked(f"{where}: layers[{place}]")
            for place, layer in enumerate(manifest.layers)
        ),
        annotations=annotations,
        raw=raw,
    )


def subject_of(store: Store, descriptor: Descriptor) -> Digest | None:
    """Return what a manifest or index is about; None for an image, and for what is unreadable."""
    where = str(descriptor.digest)
    try:
        raw = store.read(descriptor, MANIFEST_LIMIT)
        document: ManifestObject | IndexObject
        if descriptor.media_type in mediatypes.MANIFESTS:
            document = decode(raw, ManifestObject, where)
        else:
            document = decode(raw, IndexObject, where)
        return document.subject.checked(where).digest if document.subject else None
    except BlobDamaged as error:
        store.report(error)
        return None
    except (BlobMissing, ManifestError):
        return None


def _stored(store: Store, content: Content) -> Descriptor:
    written = store.put(content.data, content.media_type)
    return replace(written, annotations=MappingProxyType({TITLE: content.title}))
