"""A reproduction as it is published: a verdict that cites the author's record, with its own.

An in-toto statement about the image, whose predicate names both records by digest. Nobody has
to believe it: whoever has the two records gets the same verdict from them.
"""

from __future__ import annotations

from pathlib import Path

from torchship import canonical
from torchship.digest import Descriptor, Digest
from torchship.errors import RecordError
from torchship.oci import artifact
from torchship.oci.store import Store
from torchship.runs.publishing import AUTHOR, FILE, Published, read
from torchship.runs.statement import MEDIA_TYPE, STATEMENT
from torchship.runs.verdict import Verdict, compare

ARTIFACT_TYPE = "application/vnd.torchship.verdict.v1+json"
PREDICATE = "urn:torchship:verdict:v1"
VERDICT = "dev.torchship.verdict"
"""Annotation: the verdict in its own words, for lists of what refers to an image."""

RECORD = "dev.torchship.record"
"""Annotation: the digest of the author's record that the verdict is about."""


def folder(path: Path) -> Path | None:
    """Return the directory that `reproduce` wrote, of it or of its record; None of another."""
    found = path if path.is_dir() or path.name != FILE else path.parent
    return found if is_reproduction(found) else None


def is_reproduction(path: Path) -> bool:
    """Tell whether a directory is one that `reproduce` wrote."""
    return (path / AUTHOR).is_file()


def attach(store: Store, image: Descriptor, folder: Path) -> tuple[Descriptor, Verdict]:
    """Attach a reproduction to the image that it ran; return the artifact and its verdict."""
    author, own = read(folder / AUTHOR), read(folder / FILE)
    verdict = compare(author.record, own.record)
    written = artifact.attach(
        store,
        image,
        ARTIFACT_TYPE,
        [
            artifact.Content(encode(author, own, verdict), MEDIA_TYPE, "verdict.json"),
            artifact.Content(own.raw, MEDIA_TYPE, FILE),
        ],
        {VERDICT: verdict.wording, RECORD: str(author.digest)},
    )
    return written, verdict


def encode(author: Published, own: Published, verdict: Verdict) -> bytes:
    """Encode the statement. Its subject is the image that the reproducer ran."""
    image = own.record.image
    if not {image.manifest, image.index} & {
        author.record.image.manifest,
        author.record.image.index or author.record.image.manifest,
    }:
        raise RecordError("the two records are about different images")
    return canonical.encode(
        {
            "_type": STATEMENT,
            "subject": [{"name": image.name, "digest": {"sha256": _subject(own).hex}}],
            "predicateType": PREDICATE,
            "predicate": {
                "verdict": str(verdict.level),
                "wording": verdict.wording,
                "reasons": list(verdict.reasons),
                "author": {"digest": str(author.digest)},
                "reproducer": {"digest": str(own.digest)},
                "torchship": own.record.torchship,
            },
        }
    )


def _subject(own: Published) -> Digest:
    return own.record.image.index or own.record.image.manifest
