"""Small text files: read only where they are files, replaced at once or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from torchship.errors import ProjectError

LIMIT = 64 << 20
"""Bytes: the longest of them, a lock of many platforms, has a few."""


def read(path: Path, *, limit: int = LIMIT) -> bytes:
    """Read a file of at most ``limit`` bytes; links are followed.

    What stands under a name is the project's author's choice: a pipe would be waited for, and a
    device has no end. Raises `OSError` for these, too, as for what cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        kind = os.fstat(handle).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "it is a pipe, a socket or a device", str(path))
        found = stream.read(limit + 1)
    if len(found) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit >> 20} MB", str(path))
    return found


def write(path: Path, text: str, error: type[ProjectError] = ProjectError) -> None:
    """Write ``text`` beside ``path``, then put it in place: no reader ever sees half of it.

    Line ends are written as they are. Keeps the mode of a file that exists, and writes
    through a link to it; raises ``error`` where the folder cannot be written.
    """
    import tempfile  # most commands write no such file

    path = path.resolve()
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as fault:
        raise error(f"{path} cannot be written: {fault.strerror}") from None
    beside = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        beside.chmod(_mode(path))
        beside.replace(path)
    except OSError as fault:
        beside.unlink(missing_ok=True)
        raise error(f"{path} cannot be written: {fault.strerror}") from None


def _mode(path: Path) -> int:
    """Return the file's mode, or what a new file gets: mkstemp's 0600 would hide it from others."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
