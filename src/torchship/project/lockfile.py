"""``torchship.lock`` on disk: TOML that is sorted, checked in every field, and whole.

A lock travels through merges and editors, and is made of names that end in paths: nothing
in it is believed before it has been checked. ``checksum`` covers all the rest, so that a lock
that was cut off between two entries, or changed by hand, is told from one that is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from torchship import canonical
from torchship.digest import Digest
from torchship.errors import LockError
from torchship.project import lockcheck, tables, textfile
from torchship.project.lock import VERSION, VERSION_WITH_VARIANTS, Lock, PlatformLock, WheelPin
from torchship.project.lockcheck import inputs

__all__ = ["HEADER", "MEND", "inputs", "read", "write"]

HEADER = (
    "# Made by `torchship lock`; change the requirements and run it again instead of editing.\n"
    "# Every file of the image, by sha256: commit it, so that the image can be made again.\n\n"
)
MEND = "run `torchship lock` to make it afresh"


def read(path: Path) -> Lock:
    """Read and check a lock; raise `LockError` that names the path to every fault."""
    if path.is_dir():
        raise LockError(f"{path} is a folder, and the lock is a file", hint="move it away")
    if not path.is_file():
        raise LockError(f"there is no {path.name} in {path.parent}", hint="run `torchship lock`")
    try:
        document = tables.parse(path, LockError)
    except LockError as error:
        raise LockError(f"{error.message}; it is damaged or cut off", hint=MEND) from None
    if document.get("version") not in (VERSION, VERSION_WITH_VARIANTS):
        _refuse_version(document, path)
    issues: list[str] = []
    found = lockcheck.check(document, issues)
    if found is None or issues:
        more = f" (and {len(issues) - 5} more)" if len(issues) > 5 else ""
        shown = "; ".join(issues[:5])
        raise LockError(f"{path.name} is damaged: {shown}{more}", hint=MEND)
    if _checksum(document) != document["checksum"]:
        raise LockError(
            f"{path.name} is cut off or was edited by hand: its content does not fit its checksum",
            hint=MEND,
        )
    return found


def write(lock: Lock, path: Path) -> None:
    """Write the lock beside ``path``, then put it in place: a reader never sees half of it."""
    import tomli_w  # most commands only read the lock

    document = _document(lock)
    document["checksum"] = _checksum(document)
    ordered = {key: document[key] for key in ("version", "created", "inputs", "checksum")}
    text = HEADER + tomli_w.dumps({**ordered, **document})
    textfile.write(path, text, LockError)


def _checksum(document: Mapping[str, object]) -> str:
    rest = {key: value for key, value in document.items() if key != "checksum"}
    created = rest.get("created")
    if isinstance(created, datetime):
        rest["created"] = created.astimezone(UTC).isoformat()
    return str(Digest.of(canonical.encode(rest)))


def _refuse_version(document: Mapping[str, object], path: Path) -> None:
    version = document.get("version")
    if isinstance(version, int) and version > VERSION_WITH_VARIANTS:
        raise LockError(
            f"{path.name} has format {version}; this torchship reads formats {VERSION} to "
            f"{VERSION_WITH_VARIANTS}",
            hint="upgrade torchship",
        )
    raise LockError(f"{path.name} is damaged: version: expected {VERSION}", hint=MEND)


def _document(lock: Lock) -> dict[str, object]:
    created = lock.created.astimezone(UTC).replace(microsecond=0)
    platforms = dict.fromkeys(sorted(entry.platform for entry in lock.platforms))
    varied = any(entry.variant for entry in lock.platforms)
    document: dict[str, object] = {
        "version": VERSION_WITH_VARIANTS if varied else VERSION,
        "created": created,
        "inputs": str(lock.inputs),
        "resolved-from": dict(sorted(lock.resolved_from.items())),
        "platform": [_platform(lock.of(platform)) for platform in platforms],
    }
    if lock.data:
        document["data"] = [
            {"path": pin.path, "filename": pin.filename, "size": pin.size, "sha256": pin.digest.hex}
            for pin in sorted(lock.data, key=lambda pin: pin.path)
        ]
    return document


def _platform(entries: tuple[PlatformLock, ...]) -> dict[str, object]:
    """Write a platform's variants as one table: what they share stands there once."""
    entry = entries[0]
    base: dict[str, object] = {"reference": entry.base.reference}
    if entry.base.digest is not None:
        base["digest"] = str(entry.base.digest)
    if entry.base.interpreter:
        base["interpreter"] = entry.base.interpreter
    if entry.base.packages:
        base["package"] = [
            {
                "name": pin.name,
                "version": pin.version,
                "architecture": pin.architecture,
                "path": pin.path,
                "size": pin.size,
                "sha256": pin.digest.hex,
            }
            for pin in sorted(entry.base.packages, key=lambda pin: (pin.name, pin.architecture))
        ]
    document: dict[str, object] = {
        "platform": str(entry.platform),
        "python": entry.python,
        "base": base,
    }
    common = set(entry.wheels).intersection(*(other.wheels for other in entries[1:]))
    if common:
        document["wheel"] = _wheels(common)
    if entry.variant:
        document["variant"] = [
            {"name": each.variant, "wheel": _wheels(set(each.wheels) - common)} for each in entries
        ]
    return document


def _wheels(pins: Iterable[WheelPin]) -> list[dict[str, object]]:
    return [
        {
            "name": pin.name,
            "version": pin.version,
            "filename": pin.filename,
            "size": pin.size,
            "sha256": pin.digest.hex,
        }
        for pin in sorted(pins, key=lambda pin: pin.name)
    ]
