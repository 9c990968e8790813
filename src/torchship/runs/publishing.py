"""Records attached to images of a store: what a push sends along, and a pull brings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchship.amounts import counted
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
from torchship.runs.run import holds_anything
from torchship.runs.statement import LARGEST, MEDIA_TYPE, parse

ARTIFACT_TYPE = "application/vnd.torchship.run-record.v1+json"
FILE = "record.json"
AUTHOR = "author.json"
"""The author's record, as it came, in the directory of a reproduction."""

CREATED = "org.opencontainers.image.created"


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
        inner = path.is_dir() and any(path.glob(f"*/{FILE}"))
        raise RecordError(
            f"{file} cannot be read: {error.strerror}",
            hint=f"name one of the directories in {path}/"
            if inner
            else "name a record.json, or the directory that `torchship record` wrote",
        ) from None
    return Published(record=parse(raw, str(file)), raw=raw)


def newest(parent: Path, reference: str, image: Digest | None) -> Path:
    """Return the newest directory in which `record` left what ``reference`` can be published with.

    ``image`` is what the reference names in the store. Where it names nothing there, the newest
    record must be about an image of the same name. Directories of single runs and of
    reproductions are passed over. Raises `UsageError`, and `RecordError` where the newest
    recording left no record, or a faulty one.
    """
    found = sorted((_age(folder), folder) for folder in parent.glob("*") if _is_recording(folder))
    if not found:
        raise UsageError(
            f"there is no record in {parent}/",
            hint="make one with `torchship record`, or name its directory: "
            f"torchship publish {reference} RECORD",
        )
    folder = found[-1][1]
    named = f"name the record that is meant: torchship publish {reference} RECORD"
    if not (folder / FILE).exists():
        raise RecordError(
            f"{folder} is the newest recording, and holds no record: it failed, or was stopped",
            hint=named,
        )
    record = read(folder).record
    if image is not None:
        return _about(found, parent, reference, image)
    if _last_part(record.image.name) != _last_part(reference):
        raise UsageError(
            f"the newest record, {folder}, is about {record.image.name}, which has another name "
            f"than {reference}",
            hint=f"if that is meant: torchship publish {reference} {folder}",
        )
    return folder


def _about(
    found: Sequence[tuple[float, Path]], parent: Path, reference: str, image: Digest
) -> Path:
    """Return the newest of the recordings that is about an image of the store."""
    for _, folder in reversed(found):
        if (folder / FILE).exists() and image in _digests(read(folder).record):
            return folder
    raise UsageError(
        f"no record in {parent}/ is about {reference} as it is in the store ({image.short})",
        hint=f"torchship record {reference}",
    )


def _is_recording(folder: Path) -> bool:
    """Tell whether `record` made a folder: not `run`, not `reproduce`; and ran something in it."""
    if not folder.is_dir() or (folder / "output").exists() or (folder / AUTHOR).exists():
        return False
    return holds_anything(folder)


def _age(folder: Path) -> float:
    """Return when a recording was made, in seconds since 1970: as it says, or as far as it got."""
    file = folder / FILE
    try:
        return read(folder).record.recorded.timestamp()
    except RecordError:
        return (file if file.exists() else folder).stat().st_mtime


def _last_part(name: str) -> str:
    """Return ``mnist`` of ``docker.io/me/mnist:v0.1``."""
    return name.partition("@")[0].rpartition("/")[2].partition(":")[0]


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
        {CREATED: created},
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
    store: Store,
    top: Descriptor,
    progress: Progress,
    *,
    among: Collection[Digest] | None = None,
    serves: Callable[[Published], bool] | None = None,
) -> Published:
    """Return the record that an image is judged by; raise `RecordError` where there is none.

    Of several, the newest that was made of more than one run: a single run has no spread, and
    takes the place of none that has. Where each is of one run, the newest. Those that ``serves``
    refuses count only where it refuses all, for the caller to say why.
    """
    found = attached(store, top, among=among)
    if not found:
        raise nothing_attached()
    serving = [each for each in found if serves is None or serves(each)] or found
    several = [each for each in serving if len(each.record.runs) > 1]
    taken = (several or serving)[0]
    if len(found) > 1:
        progress.say(f"{len(found)} records are attached to the image:")
        for each in found:
            progress.say(f"  {told(each)}{', taken' if each is taken else ''}")
    return taken


def nothing_attached() -> RecordError:
    """Return what is raised where an image has no record."""
    return RecordError(
        "no record is attached to the image: there is nothing to compare a run with",
        hint="its author makes one with `torchship record` and `torchship publish`",
    )


def told(published: Published) -> str:
    """Return a record in half a line: its digest, how many runs, and when it was made."""
    record = published.record
    return (
        f"{published.digest.short}, {counted(len(record.runs), 'run')}, "
        f"made at {record.recorded:%Y-%m-%d %H:%M:%S} UTC"
    )


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
