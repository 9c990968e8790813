"""Files that are whole or not there: written aside, flushed to disk, then renamed.

A temporary file is locked by the process that writes it. The lock dies with the process,
whatever killed it, so whoever can take the lock may throw the file away.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from torchship.errors import StoreError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_BUFFER = 1 << 20
_FLUSHED = 16 << 20  # bytes after which the disk is set to work, so that nobody waits for it later
_POLL = 0.05  # seconds


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says of a failed write into a `StoreError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(
                f"no space is left to write {path}",
                hint="free some space, run `torchship prune --downloads`, "
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


class _Flush(threading.Thread):
    """Brings what a file has so far to the disk, while more of it is being made."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self._fault: OSError | None = None
        self.start()

    def run(self) -> None:
        """Flush; the system tells a fault to one caller only, so it is kept for `finish`."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._fault = error

    def finish(self) -> None:
        """Wait for the end; raises `OSError` where the disk failed."""
        self.join()
        if self._fault is not None:
            raise self._fault


class Temporary:
    """A file in the making. Leaving its context without `publish` throws it away."""

    _unflushed = 0  # bytes written since the last flush began
    _flush: _Flush | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with writing(folder):
            self.path, self._file = _locked(folder)

    def write(self, data: bytes, /) -> int:
        """Append bytes; raises `StoreError` where the disk is full."""
        with writing(self.folder):
            self._unflushed += len(data)
            if self._unflushed >= _FLUSHED and (self._flush is None or not self._flush.is_alive()):
                self._end_flush()
                self._flush, self._unflushed = _Flush(self._file.fileno()), 0
            return self._file.write(data)

    def publish(self, target: Path) -> os.stat_result:
        """Give the file its name, replacing what had it; return what ``stat`` then says."""
        with writing(target):
            self._file.flush()
            self._end_flush()
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
            self._end_flush()
        with suppress(OSError):
            self._file.close()

    def _end_flush(self) -> None:
        if self._flush is not None:
            self._flush.finish()

    def __enter__(self) -> Temporary:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


class Partial(Temporary):
    """A file in the making that outlives its writer, so that another one can go on with it.

    One writes at a time: whoever comes meanwhile waits, calling ``wait`` every few milliseconds,
    which may raise. ``size`` is what was there, in bytes, when its turn came. What was written is
    kept unless it is published or discarded.
    """

    def __init__(self, path: Path, wait: Callable[[], None]) -> None:
        self.folder = path.parent
        self.path = path
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = _claimed(path, wait)
            self.size = self._file.seek(0, os.SEEK_END)

    def read(self) -> Iterator[bytes]:
        """Yield what is there, in pieces; what is written comes after it."""
        self._file.seek(0)
        while piece := self._file.read(_BUFFER):
            yield piece

    def restart(self) -> None:
        """Throw away what is there, to write it anew."""
        with writing(self.path):
            self._file.seek(0)
            self._file.truncate()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file.closed:
            return
        with suppress(OSError):  # what the disk did not take is had again from where it came
            self._end_flush()
            self._file.flush()
        if os.fstat(self._file.fileno()).st_size == 0:
            self.path.unlink(missing_ok=True)
        with suppress(OSError):
            self._file.close()


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


def _claimed(path: Path, wait: Callable[[], None]) -> BinaryIO:
    """Open a file that one process writes at a time, making it where it is not there."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            while not _locks(descriptor):
                wait()
                time.sleep(_POLL)
            # Whoever had it may have published or removed it: then this is no longer the file.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return os.fdopen(descriptor, "r+b", buffering=_BUFFER)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
