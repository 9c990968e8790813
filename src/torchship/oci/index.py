"""``index.json`` of an image layout: which images the store holds, by name.

Entries that other tools wrote are kept as they are, whatever fields they carry.

Source: OCI image-spec v1.1, image-layout.md ("index.json file"); annotations.md
(``org.opencontainers.image.ref.name``), which holds the full reference here, so that
``skopeo inspect oci:DIR:NAME`` finds an image by the name that torchship gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from torchship import canonical
from torchship.digest import Descriptor, Digest
from torchship.errors import InvalidReference, ManifestError, StoreError
from torchship.oci import durable, mediatypes
from torchship.oci.documents import DescriptorObject, decode
from torchship.oci.reference import Reference

REF_NAME = "org.opencontainers.image.ref.name"

_ROOM = 4 << 10
"""Characters of annotations, platform and type that an entry of ours keeps.

They may be a stranger's, and every command reads all entries: there is no room for a book.
"""

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
"""The content of the file ``oci-layout``."""


class _File(msgspec.Struct, kw_only=True, rename="camel"):
    schema_version: int
    manifests: list[msgspec.Raw]


class Entry(Struct, frozen=True, kw_only=True):
    """One entry: its descriptor, its name where it has one, and the JSON that it stands as."""

    descriptor: Descriptor
    name: str | None
    raw: bytes

    @property
    def reference(self) -> Reference | None:
        """The name as a reference: other tools write short ones, or none at all."""
        try:
            return Reference.parse(self.name) if self.name else None
        except InvalidReference:
            return None


class Index(Struct, frozen=True, kw_only=True):
    """The entries of ``index.json``, in its order. Changes give a new value."""

    entries: tuple[Entry, ...] = ()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def get(self, reference: Reference) -> Descriptor | None:
        """Return what a reference names, if it is there."""
        return next((entry.descriptor for entry in self if entry.reference == reference), None)

    def with_name(self, reference: Reference, descriptor: Descriptor) -> Index:
        """Return an index where the reference names this image, and no other.

        What its descriptor says besides is kept where it is 4 KiB at most.
        """
        return self.without(reference)._append(descriptor, str(reference))

    def with_referrer(self, descriptor: Descriptor) -> Index:
        """Return an index that also holds a manifest without a name of its own.

        Its annotations stay where they are, in the manifest.
        """
        if any(entry.descriptor.digest == descriptor.digest for entry in self):
            return self
        return self._append(replace(descriptor, annotations=MappingProxyType({})), None)

    def without(self, reference: Reference) -> Index:
        """Return an index without that name."""
        return Index(entries=tuple(entry for entry in self if entry.reference != reference))

    def dropping(self, digests: frozenset[Digest]) -> Index:
        """Return an index without any entry for these manifests."""
        return Index(entries=tuple(e for e in self if e.descriptor.digest not in digests))

    def _append(self, descriptor: Descriptor, name: str | None) -> Index:
        annotations = {k: v for k, v in descriptor.annotations.items() if k != REF_NAME}
        kept = replace(descriptor, annotations=annotations)
        if _length(kept) > _ROOM:
            kept = Descriptor(
                media_type=descriptor.media_type, digest=descriptor.digest, size=descriptor.size
            )
        if name is not None:
            kept = replace(kept, annotations={**kept.annotations, REF_NAME: name})
        document = kept.as_json()
        return Index(entries=(*self.entries, _entry(canonical.encode(document), "index.json")))


def read(path: Path) -> Index:
    """Read ``index.json``; one that is not there is empty. Raises `StoreError` if damaged."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Index()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    try:
        file = decode(raw, _File, str(path))
        return Index(entries=tuple(_entry(bytes(item), str(path)) for item in file.manifests))
    except ManifestError as error:
        raise StoreError(
            f"{path} is damaged: {error.message}",
            hint="move it away: what was built is then made again without work, and named again",
        ) from None


def write(path: Path, index: Index, temporary: Path) -> None:
    """Replace ``index.json`` at one stroke."""
    document = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": [msgspec.json.decode(entry.raw) for entry in index],
    }
    durable.write(path, canonical.encode(document), temporary)


def change(path: Path, temporary: Path, step: Callable[[Index], Index]) -> None:
    """Read, change and write; the caller holds the lock."""
    before = read(path)
    after = step(before)
    if after != before:
        write(path, after, temporary)


def _length(descriptor: Descriptor) -> int:
    said = (*descriptor.annotations.items(), *(descriptor.platform or {}).items())
    return len(descriptor.artifact_type or "") + sum(len(k) + len(v) for k, v in said)


def _entry(raw: bytes, where: str) -> Entry:
    descriptor = decode(raw, DescriptorObject, where).checked(where)
    # What the entry is called is the index's affair, not the image's.
    others = {k: v for k, v in descriptor.annotations.items() if k != REF_NAME}
    return Entry(
        descriptor=replace(descriptor, annotations=others),
        name=descriptor.annotations.get(REF_NAME),
        raw=raw,
    )
