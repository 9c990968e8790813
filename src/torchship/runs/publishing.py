"""Records attached to images of a store: what a push sends along, and a pull brings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchship.digest import Descriptor, Digest
from torchship.errors import (
    BlobDamaged,
    BlobMissing,
    ImageNotFound,
    RecordError,
    UsageError,
)
from torchship.oci import artifact
from torchship.oci.image import held
from torchship.oci.store import Store
from torchship.progress import Progress
from torchship.runs.record import Record
from torchship.runs.statement import LARGEST, MEDIA_TYPE, parse

ARTIFACT_TYPE = "application/vnd.torchship.run-record.v1+json"
FILE = "record.json"

_CREATED = "org.opencontainers.image.created"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A record with the raw bytes that it was read from, whose digest names it."""

    record: Record
    raw: bytes

    @property
    def digest(self) -> Digest:
        """What a verdict cites."""
        return Digest.of(self.raw)


def read(path: Path) -> Published:
    """Read a record.json, or the one in a directory; raise `RecordError`."""
    file = path / FILE if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror}") from None
    return Published(record=parse(raw, str(file)), raw=raw)


def newest(parent: Path, images: Sequence[Digest]) -> Path:
    """Return the newest of the directories in which `record` left one about these images.

    Directories of single runs are passed over. Raises `UsageError` where there is none.
    """
    found = []
    for file in parent.glob(f"*/{FILE}"):
        if (file.parent / "output").exists():
            continue
        try:
            published = read(file)
        except RecordError:
            continue
        if not images or _digests(published.record) & set(images):
            found.append((published.record.recorded, file))
    if not found:
        raise UsageError(
            f"no record in {parent}/ is about this image",
            hint="make one with `torchship record`, or name its directory",
        )
    return max(found)[1].parent


def subject(store: Store, record: Record) -> Descriptor:
    """Return the image of the store that a record is about: its index, where it has one."""
    image = record.image
    for digest in (image.index, image.manifest):
        if digest is not None:
            try:
                return store.find(str(digest))
            except ImageNotFound:
                continue
    raise ImageNotFound(
        f"the record is about {image.name} ({image.manifest}), which is not in the store",
        hint="it was built anew, or removed, since: record it again",
    )


def attach(store: Store, image: Descriptor, published: Published) -> Descriptor:
    """Attach a record to an image of the store; pushing the image then sends it along."""
    created = f"{published.record.recorded:%Y-%m-%dT%H:%M:%SZ}"
    return artifact.attach(
        store,
        image,
        ARTIFACT_TYPE,
        [artifact.Content(published.raw, MEDIA_TYPE, FILE)],
        {_CREATED: created},
    )


def attached(
    store: Store, top: Descriptor, *, among: Collection[Digest] | None = None
) -> tuple[Published, ...]:
    """Return the records that refer to an image, or to one of its index, newest first.

    ``among`` names the artifacts that count: others may have come to the store from a repository
    that is not the author's. None: all of them.

    Raises `RecordError` for one that is faulty: whoever can attach a record is the publisher.
    """
    subjects = dict.fromkeys((top.digest, *(each.digest for each in held(store, top))))
    found: dict[Digest, Published] = {}
    for digest in subjects:
        for descriptor in artifact.referrers(store, digest, ARTIFACT_TYPE):
            if among is not None and descriptor.digest not in among:
                continue
            published = _read(store, descriptor)
            found[published.digest] = published
    return tuple(sorted(found.values(), key=lambda each: each.record.recorded, reverse=True))


def chosen(
    store: Store, top: Descriptor, progress: Progress, *, among: Collection[Digest] | None = None
) -> Published:
    """Return the newest record about an image; raise `RecordError` where there is none."""
    found = attached(store, top, among=among)
    if not found:
        raise RecordError(
            "no record is attached to the image: there is nothing to compare a run with",
            hint="its author makes one with `torchship record` and `torchship publish`",
        )
    if len(found) > 1:
        progress.say(f"{len(found)} records are attached to the image: taking the newest")
    return found[0]


def _read(store: Store, descriptor: Descriptor) -> Published:
    where = f"the record {descriptor.digest}"
    try:
        layers = [
            layer
            for layer in artifact.read(store, descriptor).layers
            if layer.media_type == MEDIA_TYPE
        ]
        if len(layers) != 1:
            raise RecordError(f"{where} holds {len(layers)} statements, not one")
        raw = store.read(layers[0], LARGEST)
    except (BlobMissing, BlobDamaged) as error:
        raise RecordError(f"{where} cannot be read: {error.message}") from None
    return Published(record=parse(raw, where), raw=raw)


def about(published: Published, manifest: Digest, top: Digest) -> Published:
    """Return a record that is about an image; raise `RecordError` for one about another."""
    if not _digests(published.record) & {manifest, top}:
        raise RecordError(
            f"the record {published.digest} is about another image "
            f"({published.record.image.manifest}) than it is attached to"
        )
    return published


def _digests(record: Record) -> set[Digest]:
    return {record.image.manifest, *([record.image.index] if record.image.index else [])}
