"""A layer's uncompressed stream, inflated and hashed beside the work that uses it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from queue import Queue
from typing import BinaryIO

from torchship.digest import CHUNK, Digest
from torchship.errors import LayerError, TorchshipError

_AHEAD = 8  # chunks inflated before they are asked for: what memory is spent on


class Uncompressed:
    """Reads gzip (of one or many members), zstd, or what is not compressed at all.

    Which one is told by the first bytes, as every engine does: media types of old images are
    not exact. Inflating and hashing run in a thread of their own, since both leave Python's
    lock to others.
    """

    def __init__(self, blob: BinaryIO) -> None:
        self._blob = blob
        self._digest = hashlib.sha256()
        self._queue: Queue[bytes | Exception] = Queue(_AHEAD)
        self._buffer = b""
        self._at = 0
        self._ended = False
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="uncompress", daemon=True)

    def __enter__(self) -> Uncompressed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._abandoned.set()
        while not self._ended:
            self._fill()
        self._thread.join()

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes, or fewer where the stream ends."""
        end = self._at + size
        if end <= len(self._buffer):
            piece = self._buffer[self._at : end]
            self._at = end
            return piece
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield ``size`` bytes, or fewer where the stream ends, without copying them."""
        while size > 0:
            if self._at == len(self._buffer) and not self._next():
                return
            piece = memoryview(self._buffer)[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Read over ``size`` bytes, or fewer where the stream ends."""
        for _ in self.pieces(size):
            pass

    def digest(self) -> Digest:
        """Read to the end and return the digest of everything: the diff_id."""
        while self._next():
            pass
        self._thread.join()
        return Digest(self._digest.hexdigest())

    def _next(self) -> bool:
        found = self._fill()
        if isinstance(found, Exception):
            raise found
        self._buffer, self._at = found, 0
        return bool(found)

    def _fill(self) -> bytes | Exception:
        if self._ended:
            return b""
        found = self._queue.get()
        self._ended = not found or isinstance(found, Exception)
        return found

    def _produce(self) -> None:
        last: bytes | Exception = b""
        try:
            for piece in _inflated(self._blob):
                if self._abandoned.is_set():
                    break
                self._digest.update(piece)
                self._queue.put(piece)
        except (OSError, TorchshipError) as error:
            last = error
        finally:
            self._queue.put(last)  # whatever happens, the reader must not wait for ever


def _inflated(blob: BinaryIO) -> Iterator[bytes]:
    magic = blob.read(4)
    blob.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return _gunzipped(blob)
    if magic == b"\x28\xb5\x2f\xfd":
        return _unzstd(blob)
    return iter(lambda: blob.read(CHUNK), b"")


def _gunzipped(blob: BinaryIO) -> Iterator[bytes]:
    import gzip

    from isal import igzip, isal_zlib

    try:
        with igzip.open(blob, "rb") as stream:  # type: ignore[no-untyped-call]
            while piece := stream.read(CHUNK):
                yield piece
    except (gzip.BadGzipFile, EOFError, isal_zlib.error) as error:  # type: ignore[misc] # its stub
        raise LayerError(f"the layer's gzip data is damaged ({error})") from None


def _unzstd(blob: BinaryIO) -> Iterator[bytes]:
    import zstandard

    # RFC 8878, 3.1.1.1.2 recommends decoders to take windows of 8 MiB; zstd --long uses 128
    decoder = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    try:
        with decoder.stream_reader(blob, read_across_frames=True, closefd=False) as stream:
            while piece := stream.read(CHUNK):
                yield piece
    except zstandard.ZstdError as error:
        raise LayerError(f"the layer's zstd data is damaged ({error})") from None
