"""Blobs on disk, filed under their sha256, checked when they enter and when they changed.

Hashing a gigabyte at each use would cost a second each time. So the store remembers, beside
each blob it has verified, what ``stat`` said of it (size, mtime, ctime, inode: a stamp). A blob
that still has its stamp has not been written to; any other is hashed again before it is used.

Source: OCI image-spec v1.1, image-layout.md ("Blobs").
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from torchship.digest import CHUNK, Descriptor, Digest
from torchship.errors import BlobDamaged, BlobMissing, HostileInput, StoreError
from torchship.oci import durable

_NAME = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """The blobs of one store; the other folders are on the same disk.

    ``partial`` holds what came of blobs whose download ended early, by digest.
    """

    def __init__(self, folder: Path, *, stamps: Path, temporary: Path, partial: Path) -> None:
        self.folder = folder
        self._partial = partial
        self._stamps = stamps
        self._temporary = temporary

    def path(self, digest: Digest) -> Path:
        """Where a blob lies, or would."""
        return self.folder / digest.hex

    def __contains__(self, digest: Digest) -> bool:
        return self.path(digest).is_file()

    def __iter__(self) -> Iterator[Digest]:
        """Yield the digests that are there, in no order; other files are not ours to judge."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if _NAME.fullmatch(path.name) and path.is_file():
                yield Digest(path.name)

    def writer(self) -> BlobWriter:
        """Begin a blob whose digest is taken as it is written."""
        return BlobWriter(self)

    def resume(self, digest: Digest, wait: Callable[[], None]) -> ResumedWriter:
        """Begin a blob that is known by its digest, or go on with what is there of it.

        Where another process is at it, its end is waited for.
        """
        return ResumedWriter(self, digest, durable.Partial(self._partial / digest.hex, wait))

    def temporary(self) -> durable.Temporary:
        """Begin a file that `adopt` will file under a digest taken by whoever writes it."""
        return durable.Temporary(self._temporary)

    def put(self, data: bytes) -> Digest:
        """Write a small blob; one that is there already, unharmed, is left alone."""
        digest = Digest.of(data)
        if not self.is_sound(digest):
            with self.temporary() as file:
                file.write(data)
                self.adopt(file, digest)
        return digest

    def adopt(self, file: durable.Temporary, digest: Digest) -> None:
        """File bytes under the digest that they were just hashed to."""
        if self.is_sound(digest):
            file.discard()
            return
        self._remember(digest, file.publish(self.path(digest)))

    def check(self, digest: Digest) -> None:
        """Return if the blob is there and has its digest.

        Raises `BlobMissing`; or `BlobDamaged`, once the damaged file is out of the way.
        """
        path = self.path(digest)
        try:
            status = path.stat()
            if self._stamp(digest) == _stamp(status):
                return
            intact = Digest.of_file(path) == digest
        except FileNotFoundError:
            raise _missing(digest, self.folder) from None
        except OSError as error:
            # EIO is what a dying disk says; a folder in the blob's place comes here too.
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error
        if not intact:
            raise self._condemn(digest)
        self._remember(digest, status)

    def is_sound(self, digest: Digest) -> bool:
        """Tell whether the blob is there and has its digest; a damaged one is removed."""
        try:
            self.check(digest)
        except (BlobMissing, BlobDamaged):
            return False
        return True

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading, after `check`."""
        self.check(digest)
        return self.path(digest).open("rb")

    def read(self, digest: Digest, limit: int) -> bytes:
        """Return a small blob, hashed on the way; more than ``limit`` bytes are refused."""
        self.check(digest)
        with self.path(digest).open("rb") as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise HostileInput(f"{digest} is larger than the {limit} bytes that it may have")
        if Digest.of(data) != digest:
            raise self._condemn(digest)
        return data

    def read_verified(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield a blob in pieces, hashing every byte; raises `BlobDamaged` after the last."""
        running, size = hashlib.sha256(), 0
        try:
            stream = self.path(descriptor.digest).open("rb")
        except FileNotFoundError:
            raise _missing(descriptor.digest, self.folder) from None
        with stream:
            while piece := stream.read(CHUNK):
                running.update(piece)
                size += len(piece)
                yield piece
        if running.hexdigest() != descriptor.digest.hex:
            raise self._condemn(descriptor.digest)
        if size != descriptor.size:
            raise HostileInput(
                f"{descriptor.digest} has {size} bytes where {descriptor.size} were stated"
            )

    def is_stamped(self, digest: Digest) -> bool:
        """Tell whether a torchship has ever verified the blob."""
        return bool(self._stamp(digest))

    def remove(self, digest: Digest) -> int:
        """Remove a blob and its stamp; return the bytes that gives back."""
        path = self.path(digest)
        with durable.writing(path):
            size = path.stat().st_size if path.is_file() else 0
            path.unlink(missing_ok=True)
            (self._stamps / digest.hex).unlink(missing_ok=True)
        return size

    def _condemn(self, digest: Digest) -> BlobDamaged:
        fate = "it has been removed"
        try:
            self.remove(digest)
        except StoreError:
            fate = "it could not be removed"
        return BlobDamaged(
            f"{self.path(digest)} was damaged: its bytes no longer have the digest in its name, "
            f"and {fate}",
            hint="build or pull the image again",
        )

    def _stamp(self, digest: Digest) -> bytes:
        try:
            return (self._stamps / digest.hex).read_bytes()
        except OSError:
            return b""

    def _remember(self, digest: Digest, status: os.stat_result) -> None:
        # A stamp that is lost costs one hash: no flush to disk, and a read-only store is fine.
        with suppress(OSError):
            aside = self._stamps / f".{digest.hex}.{os.getpid()}"
            aside.write_bytes(_stamp(status))
            aside.rename(self._stamps / digest.hex)


class BlobWriter:
    """A blob that comes in from elsewhere: write, then commit. Leaving early loses it."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._file = blobs.temporary()
        self._running = hashlib.sha256()
        self.size = 0
        """Bytes written so far."""

    def write(self, data: bytes, /) -> int:
        """Append bytes; raises `StoreError` where the disk is full."""
        self._running.update(data)
        self.size += len(data)
        return self._file.write(data)

    def commit(self, expected: Digest | None = None) -> Digest:
        """File what was written under its digest; another than ``expected`` is refused."""
        digest = Digest(self._running.hexdigest())
        if expected is not None and digest != expected:
            self.abort()
            raise HostileInput(f"{digest} came where {expected} was asked for")
        self._blobs.adopt(self._file, digest)
        return digest

    def abort(self) -> None:
        """Throw away what was written."""
        self._file.discard()

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()


def _stamp(status: os.stat_result) -> bytes:
    return b"%d %d %d %d\n" % (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
    )


class ResumedWriter:
    """A blob that comes in by its digest: write from ``size`` on, then commit.

    Leaving early keeps what was written, for the next attempt.
    """

    def __init__(self, blobs: Blobs, digest: Digest, file: durable.Partial) -> None:
        self._blobs = blobs
        self._digest = digest
        self._file = file
        self._running = hashlib.sha256()
        self.size = 0
        """Bytes that are there."""
        for piece in file.read():
            self._running.update(piece)
            self.size += len(piece)

    def write(self, data: bytes, /) -> int:
        """Append bytes; raises `StoreError` where the disk is full."""
        self._running.update(data)
        self.size += len(data)
        return self._file.write(data)

    def restart(self) -> None:
        """Throw away what is there: it cannot be the beginning of the blob."""
        self._file.restart()
        self._running = hashlib.sha256()
        self.size = 0

    def commit(self) -> bool:
        """File the blob, and tell whether it is the one: bytes of another digest are dropped."""
        if self._running.hexdigest() != self._digest.hex:
            self.restart()
            return False
        self._blobs.adopt(self._file, self._digest)
        return True

    def __enter__(self) -> ResumedWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.__exit__(kind, error, trace)


def _missing(digest: Digest, folder: Path) -> BlobMissing:
    return BlobMissing(
        f"{folder} holds no blob {digest}", hint="build or pull the image that it belongs to"
    )
