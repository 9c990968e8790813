"""A run directory, or a bare record, as a Process Run Crate: what ran, on what, and what it gave.

A crate is a folder (or a zip of one) with a description of its files in JSON-LD. Nothing is
said that the record does not say: it knows no authors and no licence, so there are none.

Sources: RO-Crate 1.1; Process Run Crate 0.5 and the terms of Workflow Run RO-Crate.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
from msgspec import Struct

from torchship import canonical
from torchship.digest import Digest
from torchship.errors import RunError, UsageError
from torchship.export.provenance import PROFILE, action_id, described, links
from torchship.runs import typed
from torchship.runs.publishing import FILE, Published, read
from torchship.runs.record import Record, Run
from torchship.runs.run import folder_of

METADATA = "ro-crate-metadata.json"
"""RO-Crate 1.1, "RO-Crate Metadata File": the name that makes a folder a crate."""

_BESIDE = {
    # files of a run directory besides the runs' own: what each is
    FILE: "The record of the runs: an in-toto statement about the image",
    "author.json": "The author's record, which these runs were compared with",
    "report.html": "The report, for people",
}
_LOG = "stdout.log"
_ADDRESS = re.compile(r"https?://[!-;=?-~]+")
_PERSON = re.compile(r"([^<>]+?)\s*<(https?://[!-;=?-~]+)>")
_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_FORMATS = {
    # A fixed table: what the host's own says may differ from machine to machine
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".log": "text/plain",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}


class CrateFile(Struct, frozen=True, kw_only=True):
    """A file of a crate: its path there, where it comes from, and what it must be."""

    path: str
    source: Path
    digest: Digest
    size: int
    description: str

    @property
    def id(self) -> str:
        """Its identifier in the crate: a relative URI."""
        return quote(os.fsencode(self.path))

    def entity(self) -> dict[str, object]:
        """Describe it."""
        return {
            "@id": self.id,
            "@type": "File",
            "name": typed.text(self.path),
            "description": self.description,
            "contentSize": str(self.size),
            "sha256": self.digest.hex,
            "encodingFormat": _FORMATS.get(
                Path(self.path).suffix.lower(), "application/octet-stream"
            ),
        }


class Named(Struct, frozen=True, kw_only=True):
    """Something outside the crate, by its address; ``name`` is for people."""

    id: str
    name: str

    @classmethod
    def person(cls, text: str) -> Named:
        """Read ``Ada Lovelace <https://orcid.org/...>``; raise `UsageError` for anything else."""
        match = _PERSON.fullmatch(text.strip())
        if match is None or not text.isprintable():
            raise UsageError(
                f"{text!r} does not say who ran it and where they are known",
                hint='write "Ada Lovelace <https://orcid.org/0000-0002-1825-0097>"',
            )
        return cls(id=match[2], name=match[1])

    @classmethod
    def licence(cls, text: str) -> Named:
        """Read the address of a licence, or its name at SPDX; raise `UsageError` for neither."""
        if _SPDX.fullmatch(text):
            return cls(id=f"https://spdx.org/licenses/{text}", name=text)
        if not _ADDRESS.fullmatch(text):
            raise UsageError(
                f"{text!r} is neither a licence's name nor its address",
                hint="write its name as SPDX does: CC-BY-4.0",
            )
        return cls(id=text, name=text)

    def entity(self, kind: str) -> dict[str, object]:
        """Describe it."""
        return {"@id": self.id, "@type": kind, "name": self.name}


class Stated(Struct, frozen=True, kw_only=True):
    """What no record says, and its author may: who ran it, and under which licence it is given."""

    agent: Named | None = None
    licence: Named | None = None


class Crate(Struct, frozen=True, kw_only=True):
    """A crate: the bytes of its metadata file, and the files that it describes."""

    metadata: bytes
    files: tuple[CrateFile, ...]


_NOTHING = Stated()
_NO_LICENCE = "No licence is stated: ask the author"  # the specification demands a value


def crate(path: Path, stated: Stated = _NOTHING) -> Crate:
    """Describe a run directory with all its files; or a record.json alone, without any.

    Raises `RecordError` for a faulty record, and `RunError` where an output that it names is
    gone or has changed since.
    """
    published = read(path)
    whole = path.is_dir()
    beside = tuple(_beside(path)) if whole else (_file(FILE, path, _BESIDE[FILE]),)
    numbered = enumerate(published.record.runs, start=1)
    runs = [
        (place, tuple(_of_run(path, published.record, run, place)) if whole else ())
        for place, run in numbered
    ]
    files = (*beside, *(file for _, found in runs for file in found))
    entities = [_descriptor(), _root(published, files, stated)]
    entities += [file.entity() for file in files]
    results = {place: {_name(file): file.id for file in found} for place, found in runs}
    entities += described(published.record, results, stated.agent.id if stated.agent else None)
    if stated.licence:
        entities.append(stated.licence.entity("CreativeWork"))
    if stated.agent:
        entities.append(stated.agent.entity("Person"))
    graph = canonical.encode({"@context": _CONTEXT, "@graph": entities})
    return Crate(metadata=msgspec.json.format(graph, indent=2) + b"\n", files=files)


_CONTEXT = [
    "https://w3id.org/ro/crate/1.1/context",
    "https://w3id.org/ro/terms/workflow-run/context",
]


def _descriptor() -> dict[str, object]:
    return {
        "@id": METADATA,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
    }


def _root(published: Published, files: tuple[CrateFile, ...], stated: Stated) -> dict[str, object]:
    record = published.record
    count = f"{len(record.runs)} runs" if len(record.runs) > 1 else "One run"
    return {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Runs of {record.image.name}",
        "description": f"{count} of the image {record.image.name} ({record.image.manifest}), "
        f"recorded by torchship {record.torchship}",
        "datePublished": record.recorded.isoformat(timespec="seconds"),
        "identifier": str(published.digest),
        "conformsTo": {"@id": PROFILE},
        "hasPart": links([file.id for file in files]),
        "mentions": links([action_id(place) for place in range(1, len(record.runs) + 1)]),
        "license": {"@id": stated.licence.id} if stated.licence else _NO_LICENCE,
    }


def _beside(path: Path) -> Iterator[CrateFile]:
    for name, description in _BESIDE.items():
        source = path / name
        if source.is_file() and not source.is_symlink():
            yield _file(name, source, description)


def _of_run(path: Path, record: Record, run: Run, place: int) -> Iterator[CrateFile]:
    """Yield a run's log and its outputs, each of which must be what the record says."""
    folder = folder_of(path, run.seed, place)
    below = "" if folder == path else f"{folder.name}/"
    of_run = f"run {place} of {len(record.runs)}"
    log, output = folder / _LOG, folder / "output"
    linked = output.is_symlink() or (folder != path and folder.is_symlink())
    if not linked and log.is_file() and not log.is_symlink():
        yield _file(f"{below}{_LOG}", log, f"What {of_run} printed")
    # The names in a record are a stranger's: found files are looked up, not names opened
    found = {
        typed.text(source.relative_to(output).as_posix()): source
        for source in sorted(output.rglob("*"))
        if not linked and source.is_file() and not source.is_symlink()
    }
    for name, digest in sorted(run.outputs.items()):
        if name not in found:
            raise RunError(
                f"{output} does not hold {name}, which the record says {of_run} wrote",
                hint=f"name {FILE} itself, to describe the runs without their files",
            )
        relative = found[name].relative_to(folder).as_posix()
        file = _file(f"{below}{relative}", found[name], f"An output of {of_run}")
        if file.digest != digest:
            raise RunError(
                f"{found[name]} has changed since it was recorded",
                hint=f"name {FILE} itself, to describe the runs without their files",
            )
        yield file


def _file(path: str, source: Path, description: str) -> CrateFile:
    return CrateFile(
        path=path,
        source=source,
        digest=Digest.of_file(source),
        size=source.stat().st_size,
        description=description,
    )


def _name(file: CrateFile) -> str:
    """Return the name that the record knows an output by; a log's own otherwise."""
    return typed.text(file.path.partition("output/")[2])
