"""The records and verdicts that are attached to an image, for lists of them.

They are read where they are, in a store or a registry, and are strangers': a faulty one is
listed with its fault, and a verdict counts for what follows from the two records, whatever it
says of itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torchship.digest import Descriptor, Digest
from torchship.errors import HostileInput, RecordError, RegistryError, StoreError
from torchship.layers.layer import TITLE
from torchship.oci import artifact
from torchship.oci.image import Source
from torchship.runs import publishing, reproduction, typed
from torchship.runs.publishing import Published
from torchship.runs.record import Record
from torchship.runs.statement import MEDIA_TYPE, parse
from torchship.runs.verdict import compare

MOST = 50
"""Records, and verdicts, of one image that are read; the newest by their own account."""

_MOST_BYTES = 64 << 20
"""Of all that is read for one list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRecord:
    """A record by the digest of its artifact; ``fault`` says why it counts for nothing."""

    artifact: Digest
    published: Published | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedVerdict:
    """A reproduction by the digest of its artifact; ``own`` is the reproducer's record.

    ``wording`` follows from the author's record and that one; it is empty, and ``fault`` says
    why, where nothing does. ``author`` is the digest of the author's record.
    """

    artifact: Digest
    author: str
    wording: str = ""
    own: Record | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What is attached to an image; ``more`` counts what was not read."""

    records: tuple[ListedRecord, ...] = ()
    verdicts: tuple[ListedVerdict, ...] = ()
    more: int = 0


def listing(
    source: Source, referrers: Sequence[Descriptor], *, manifest: Digest, top: Digest
) -> Listing:
    """Read the records and verdicts among an image's referrers; ``top`` may be its index.

    What cannot be read, or is about another image, is a fault of that entry alone.
    """
    reader = _Reader(source, manifest, top)
    kinds = [
        [each for each in _newest_first(referrers) if each.artifact_type == kind]
        for kind in (publishing.ARTIFACT_TYPE, reproduction.ARTIFACT_TYPE)
    ]
    records = tuple(reader.record(each) for each in kinds[0][:MOST])
    known = {str(each.published.digest): each.published for each in records if each.published}
    return Listing(
        records=records,
        verdicts=tuple(reader.verdict(each, known) for each in kinds[1][:MOST]),
        more=sum(len(found[MOST:]) for found in kinds),
    )


def as_json(found: Listing) -> dict[str, object]:
    """Return what `inspect --json` says of them."""
    return {
        "records": [_record_json(each) for each in found.records],
        "verdicts": [_verdict_json(each) for each in found.verdicts],
    }


def _record_json(found: ListedRecord) -> dict[str, object]:
    if found.published is None:
        return {"artifact": str(found.artifact), "fault": found.fault}
    record = found.published.record
    return {
        "artifact": str(found.artifact),
        "digest": str(found.published.digest),
        **_made_json(record),
        "claims": [typed.to_json(claim) for claim in record.claims],
    }


def _verdict_json(found: ListedVerdict) -> dict[str, object]:
    return {
        "artifact": str(found.artifact),
        "record": found.author,
        **({"verdict": found.wording} if found.wording else {}),
        **({"fault": found.fault} if found.fault else {}),
        **(_made_json(found.own) if found.own else {}),
    }


def _made_json(record: Record) -> dict[str, object]:
    hardware = typed.to_json(record.hardware) if record.hardware else None
    return {
        "recorded": f"{record.recorded:%Y-%m-%dT%H:%M:%SZ}",
        "runs": len(record.runs),
        "engine": record.engine,
        "hardware": hardware,
    }


def _newest_first(referrers: Sequence[Descriptor]) -> Sequence[Descriptor]:
    return sorted(
        referrers, key=lambda each: each.annotations.get(publishing.CREATED, ""), reverse=True
    )


class _Reader:
    """Reads artifacts about one image until it has read its fill."""

    def __init__(self, source: Source, manifest: Digest, top: Digest) -> None:
        self._source = source
        self._manifest = manifest
        self._top = top
        self._left = _MOST_BYTES

    def record(self, descriptor: Descriptor) -> ListedRecord:
        try:
            found = self._statement(descriptor, publishing.FILE)
        except (HostileInput, StoreError, RegistryError) as fault:
            return ListedRecord(artifact=descriptor.digest, fault=fault.message)
        return ListedRecord(artifact=descriptor.digest, published=found)

    def verdict(self, descriptor: Descriptor, records: Mapping[str, Published]) -> ListedVerdict:
        cited = descriptor.annotations.get(reproduction.RECORD, "")
        wording, fault, own = "", "", None
        try:
            own = self._statement(descriptor, publishing.FILE).record
        except (HostileInput, StoreError, RegistryError) as error:
            fault = error.message
        author = records.get(cited)
        if own is not None and author is None:
            fault = "the record that it is about is not attached, or is faulty"
        elif own is not None and author is not None:
            wording = compare(author.record, own).wording
            said = descriptor.annotations.get(reproduction.VERDICT, "")
            if said != wording:
                fault = f"it says {said[:40] or 'nothing'} of itself"
        return ListedVerdict(
            artifact=descriptor.digest, author=cited, wording=wording, own=own, fault=fault
        )

    def _statement(self, descriptor: Descriptor, title: str) -> Published:
        layers = [
            layer
            for layer in artifact.read(self._source, descriptor).layers
            if layer.media_type == MEDIA_TYPE and layer.annotations.get(TITLE, title) == title
        ]
        if len(layers) != 1:
            raise RecordError(f"it holds {len(layers)} records, not one")
        if layers[0].size > self._left:
            raise RecordError("it is not read: so much was read before")
        self._left -= layers[0].size
        raw = self._source.read(layers[0], layers[0].size)
        found = Published(record=parse(raw, "it"), raw=raw)
        return publishing.about(found, self._manifest, self._top)
