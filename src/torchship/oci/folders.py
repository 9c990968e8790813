"""Folders of the store: which only the caller enters, and which go whatever they hold."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

_OTHERS = 0o077


def private(folder: Path) -> None:
    """Make a folder that nobody but the caller enters; one that is there and theirs becomes so.

    For what keeps modes of a stranger's choice: a file that everybody may write to is safe in it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_mode & _OTHERS and found.st_uid == os.geteuid():
        folder.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)


def remove(folder: Path) -> int:
    """Delete a tree, however deep and closed; return the bytes of its files and links.

    What is no folder stays: a symlink leads nowhere.
    """
    if not folder.is_dir() or folder.is_symlink():
        return 0
    size = 0
    waiting = [folder]
    while waiting:
        current = waiting[-1]
        current.chmod(0o700)
        below = []
        with os.scandir(current) as found:
            entries = list(found)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry)
            else:
                size += entry.stat(follow_symlinks=False).st_size
                os.unlink(entry.path)  # noqa: PTH108 (one call for each of many thousand files)
        waiting += [_lifted(Path(entry.path), folder) for entry in below]
        if not below:
            waiting.pop()
            current.rmdir()
    return size


def _lifted(path: Path, top: Path) -> Path:
    """Move a folder up to the top, so that no path grows with the depth; return where it is."""
    flat = top / f".removed-{secrets.token_hex(8)}"
    path.chmod(0o700)
    try:
        path.rename(flat)
    except OSError as error:
        # rename(2): a folder of an overlay's lower layer may have to stay where it is
        if error.errno != errno.EXDEV:
            raise
        return path
    return flat
