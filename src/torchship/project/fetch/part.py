"""A file that is on its way: what is there of it, and why a source may fail to give the rest."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from torchship.digest import Digest, chunks
from torchship.progress import Task

_FICLONE = 0x40049409  # ioctl_ficlone(2): share the blocks of a file, copy on write


class SourceFailed(Exception):
    """A source did not give the file.

    ``gone``: it says that it has no such file. ``retry``: seconds after which it may give it,
    or None. ``unreachable``: nothing at all is to be had from that host.
    """

    def __init__(
        self,
        reason: str,
        *,
        gone: bool = False,
        retry: float | None = None,
        unreachable: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.gone = gone
        self.retry = retry
        self.unreachable = unreachable


class Cancelled(Exception):
    """Another file failed in a way that ends the whole fetch."""


class Part:
    """An unfinished file: what is there of it, its running hash, and its progress."""

    def __init__(
        self,
        stream: BinaryIO,
        *,
        digest: Digest,
        size: int,
        task: Task,
        check: Callable[[], None],
    ) -> None:
        self.size = size
        self.done = 0
        self._digest = digest
        self._stream = stream
        self._check = check
        self._running = hashlib.sha256()
        self._task = task
        if os.fstat(stream.fileno()).st_size <= size:
            for piece in chunks(stream):
                self._count(piece)
        else:
            self.restart()

    @property
    def complete(self) -> bool:
        """Whether all bytes are there, right or wrong."""
        return self.done == self.size

    @property
    def good(self) -> bool:
        """Whether all bytes are there and have the digest that was asked for."""
        return self.complete and Digest(self._running.hexdigest()) == self._digest

    def write(self, piece: bytes) -> None:
        """Append; raise `SourceFailed` at the first byte too many."""
        self._check()
        if self.done + len(piece) > self.size:
            self.restart()
            raise SourceFailed(f"gives more than the {self.size} bytes of the pin")
        self._stream.write(piece)
        self._count(piece)

    def copy(self, path: Path) -> None:
        """Take a local file's bytes in place of what is there."""
        self.restart()
        with path.open("rb") as source:
            if _cloned(source, self._stream):
                for piece in chunks(self._stream, self.size + 1):
                    self._count(piece)
            else:
                for piece in chunks(source):
                    self.write(piece)

    def restart(self) -> None:
        """Throw away what is there."""
        self._stream.seek(0)
        self._stream.truncate()
        self._task.advance(-self.done)
        self.done = 0
        self._running = hashlib.sha256()

    def finish(self) -> None:
        """Hand all bytes to the operating system, and say that the work is done."""
        self._stream.flush()
        self._task.finish()

    def _count(self, piece: bytes) -> None:
        self._running.update(piece)
        self.done += len(piece)
        self._task.advance(len(piece))


def local_path(source: str) -> Path | None:
    """Return the path that a source names, or None for an HTTP address."""
    if source.startswith("/"):
        return Path(source)
    scheme, _, rest = source.partition(":")
    if scheme == "file":
        return Path(unquote("/" + rest.removeprefix("//localhost").lstrip("/")))
    if scheme in ("http", "https"):
        return None
    raise SourceFailed("is neither an http:, https: or file: address nor an absolute path")


def regular(path: Path) -> os.stat_result:
    """Return what is known of a readable file; raise `SourceFailed` for anything else."""
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise SourceFailed("no such file", gone=True) from error
    except OSError as error:
        raise SourceFailed(f"{error.strerror}") from error
    if not stat.S_ISREG(found.st_mode) or not os.access(path, os.R_OK):
        raise SourceFailed("is not a file that can be read")
    return found


def _cloned(source: BinaryIO, target: BinaryIO) -> bool:
    """Share a file's blocks where the filesystem can; the copy keeps its bytes for itself."""
    try:
        fcntl.ioctl(target, _FICLONE, source.fileno())
    except OSError:
        return False
    return True
