"""Files that are whole or not there: written aside, flushed to disk, then renamed.

A temporary file is locked by the process that writes it. The lock dies with the process,
whatever killed it, so whoever can take the lock may throw the file away.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from torchship.errors import StoreError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_BUFFER = 1 << 20


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says of a failed write into a `StoreError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(
                f"no space is left to write {path}",
                hint="free some space, run `torchship prune`, "
                "or set TORCHSHIP_HOME to a folder on a larger disk",
            ) from error
        if error.errno in _READ_ONLY:
            raise StoreError(
                f"{path} cannot be written: {_text(error)}",
                hint="the store is read-only for this user: "
                "set TORCHSHIP_HOME to a folder of your own",
            ) from error
        raise StoreError(f"{path} cannot be written: {_text(error)}") from error


def _text(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


class Temporary:
    """A file in the making. Leaving its context without `publish` throws it away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with writing(folder):
            self.path, self._file = _locked(folder)

    def write(self, data: bytes, /) -> int:
        """Append bytes; raises `StoreError` where the disk is full."""
        with writing(self.folder):
            return self._file.write(data)

    def publish(self, target: Path) -> os.stat_result:
        """Give the file its name, replacing what had it; return what ``stat`` then says."""
        with writing(target):
            self._file.flush()
            os.fsync(self._file.fileno())
            self.path.rename(target)
            # After the rename: that changes ctime.
            status = os.fstat(self._file.fileno())
            self._file.close()
        return status

    def discard(self) -> None:
        """Remove the file, if it was not published."""
        if self._file.closed:
            return
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # what could not be written once cannot be flushed now
            self._file.close()

    def __enter__(self) -> Temporary:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


def write(target: Path, data: bytes, temporary: Path) -> None:
    """Replace a small file's content at one stroke; ``temporary`` is on the same disk."""
    with Temporary(temporary) as file:
        file.write(data)
        file.publish(target)


def sweep(folder: Path) -> int:
    """Remove the temporary files whose writers are dead; return the bytes that gives back."""
    freed = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # published or removed meanwhile, a folder, or another user's
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            freed += os.fstat(descriptor).st_size
        except OSError:  # still being written, or renamed while we looked
            continue
        finally:
            os.close(descriptor)
    return freed


def _locked(folder: Path) -> tuple[Path, BinaryIO]:
    while True:
        path = folder / f"{os.getpid()}-{os.urandom(8).hex()}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # A sweep between the two calls above may have taken the file: then make another.
        if os.fstat(descriptor).st_nlink:
            return path, os.fdopen(descriptor, "w+b", buffering=_BUFFER)
        os.close(descriptor)
