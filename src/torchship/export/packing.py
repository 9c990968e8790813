"""A crate as a folder or a zip file, or in place: each file checked while it is copied."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import IO

from torchship import whole
from torchship.digest import chunks
from torchship.errors import RunError, UsageError
from torchship.export.crate import METADATA, Crate, CrateFile

_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say: the same crate, the same bytes


def save_here(crate: Crate, folder: Path) -> Path:
    """Make a run directory a crate: add the metadata file, and touch nothing else.

    The directory may be a stranger's: a link in the metadata's place is replaced.
    """
    path = folder / METADATA
    whole.write(path, crate.metadata)
    return path


def save_folder(crate: Crate, folder: Path) -> Path:
    """Write a crate into a new or empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already", hint="name a new folder, or a .zip file")
    folder.mkdir(parents=True, exist_ok=True)
    for file in crate.files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as stream:
            _copy(file, stream)
    return save_here(crate, folder)


def save_zip(crate: Crate, path: Path) -> Path:
    """Write a crate as a zip file, which is there whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(part, "x", zipfile.ZIP_DEFLATED) as archive:
            with archive.open(zipfile.ZipInfo(METADATA, _TIME), "w") as stream:
                stream.write(crate.metadata)
            for file in crate.files:
                entry = zipfile.ZipInfo(file.path, _TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                with archive.open(entry, "w", force_zip64=file.size >= 1 << 31) as stream:
                    _copy(file, stream)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _copy(file: CrateFile, target: IO[bytes]) -> None:
    running = hashlib.sha256()
    with file.source.open("rb") as source:
        for piece in chunks(source):
            running.update(piece)
            target.write(piece)
    if running.hexdigest() != file.digest.hex:
        raise RunError(f"{file.source} changed while it was copied")
