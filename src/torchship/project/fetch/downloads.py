"""The folder of downloaded files: filed by sha256, each checked before it gets its name.

``<root>/<first two digits>/<digest>/<filename>``, with ``.stamp`` beside it: what the file
looked like when it was last hashed. A data file's name may be one that cannot be kept: it is `ODD`
here. ``<root>/partial/<digest>`` is a file that is under way.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from torchship.digest import Digest

ODD = "file"
"""The name here of a file whose own would hide it, lead elsewhere, or be too long."""

_WAIT = 0.1  # seconds between two looks at a lock that another process holds


class Downloads(Struct, frozen=True):
    """The files under ``root``, which any number of processes may share."""

    root: Path

    def place(self, digest: Digest, filename: str) -> Path:
        """Return where the file is, or will be, whatever it is called."""
        name = filename if _plain(filename) else ODD
        return self.root / digest.hex[:2] / digest.hex / name

    def find(self, digest: Digest, filename: str, size: int | None) -> Path | None:
        """Return the file where it is here and whole; a damaged one is thrown away.

        A file that still looks as it did when it was hashed (size, times, inode) is taken to
        be the same; any other is hashed again.
        """
        path = self.place(digest, filename)
        stamp = path.parent / ".stamp"
        try:
            looks = _looks(path)
        except FileNotFoundError:
            return None
        with suppress(FileNotFoundError):
            if stamp.read_text("ascii", errors="replace") == looks:
                return path
        if size in (None, path.stat().st_size) and Digest.of_file(path) == digest:
            with suppress(OSError):  # a store may be read-only
                _write_stamp(path)
            return path
        path.unlink(missing_ok=True)
        return None

    @contextmanager
    def partial(self, digest: Digest, check: Callable[[], None]) -> Iterator[BinaryIO]:
        """Open the unfinished file, for this process alone; it outlives a killed process.

        Waits while another process is at it, calling ``check`` meanwhile, which may raise.
        """
        path = self.partial_path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b")
            with stream:
                # The file itself is the lock: it is released however the process ends.
                while not _locked(stream):
                    check()
                if _is(stream, path):
                    yield stream
                    return
                # Another process finished the file and moved it away: look again.

    def partial_path(self, digest: Digest) -> Path:
        """Return where the unfinished file is."""
        return self.root / "partial" / digest.hex

    def adopt(self, temporary: Path, digest: Digest, filename: str) -> Path:
        """Give a file whose digest has been checked its place, atomically and durably."""
        path = self.place(digest, filename)
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
        _write_stamp(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return path


def _plain(filename: str) -> bool:
    return (
        0 < len(os.fsencode(filename)) <= 255
        and not filename.startswith(".")
        and filename.isprintable()
        and not set(filename) & set("/\\")
    )


def _looks(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _write_stamp(path: Path) -> None:
    # Written last, and worth nothing alone: losing it only costs another hash.
    temporary = path.parent / f".stamp.{os.getpid()}"
    temporary.write_text(_looks(path), "ascii")
    temporary.replace(path.parent / ".stamp")


def _locked(stream: BinaryIO) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_WAIT)
        return False
    return True


def _is(stream: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
