"""The only writer of tar headers and gzip members: entries in, one layer's bytes out.

A layer is a gzip file of many members (RFC 1952, 2.2: "a gzip file consists of a series of
members"), which decompresses to one tar archive (POSIX.1-2001, pax). What is already deflated,
as in a wheel, is wrapped as a member of its own and never compressed again; everything else
is compressed here, in blocks of fixed size, by one pinned encoder, so that the same entries
give the same bytes on every machine.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import Protocol

import deflate
from isal import isal_zlib
from msgspec import Struct

from torchship.digest import Digest
from torchship.errors import HostileInput

LEVEL = 1
"""libdeflate's level: 6% larger than its level 4, in little more than half of the time."""

BLOCK = 1 << 20
"""Bytes compressed at a time. Part of the format: another size gives other bytes."""

SMALL = 1 << 14
"""Bytes up to which a file is compressed with its neighbours. Part of the format, as `BLOCK` is:
a member for each of torch's thousands of headers took more time and more room."""

_INFLATED = 1 << 18  # bytes inflated at a time: what a processor's cache holds
_BATCH = 1 << 18  # compressed bytes gathered before they are hashed and written, in one go
_RECORD = 512
_END = bytes(2 * _RECORD)  # "an archive is terminated by two 512-byte zero records"
_FORBIDDEN = frozenset(("", ".", ".."))  # parts that no path of a layer has
_NAME = 100  # bytes of a path that fit into the header record itself
_SIZE = 8**11 - 1  # the largest size that does
_ID = 8**7 - 1  # the largest uid and gid
_SPACES = b"        "  # what the checksum's field is taken for when it is computed
_MAGIC = b"ustar\x0000"  # with the version
_REST = bytes(247)  # names of owners, devices and the prefix: all left out
_FIXED = sum(_SPACES) + sum(_MAGIC)  # what these fields add to the checksum
# ID1 ID2, CM=8 (deflate), no flags, MTIME=0, XFL=0, OS=255 (unknown)
_MEMBER_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


class Kind(enum.Enum):
    """What an entry is: tar's type flag."""

    FILE = b"0"
    DIRECTORY = b"5"
    SYMLINK = b"2"
    HARDLINK = b"1"


class Entry(Struct, frozen=True, kw_only=True):
    """One path of a layer. ``path`` is relative to the root: ``opt/venv/bin/python``.

    ``size`` counts a file's bytes, uncompressed; ``target`` is where a link points: as
    written for a symlink, a path of the same archive for a hard link.
    """

    path: str
    kind: Kind = Kind.FILE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    target: str = ""


class Written(Struct, frozen=True, kw_only=True):
    """What came out: the digests and sizes (in bytes) of a finished layer."""

    digest: Digest
    diff_id: Digest
    size: int
    unpacked_size: int


class Sink(Protocol):
    """Where a layer's bytes go: anything with a ``write``."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""


class Archive:
    """Writes one layer; both digests are taken on the way. Order of entries is the caller's.

    Missing parents are written as directories of root with mode 0755; a caller that wants
    another owner adds the directory first. A second entry for a path raises `HostileInput`.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        self._diff_id = hashlib.sha256()
        self._size = 0
        self._unpacked = 0
        self._plain = bytearray()  # uncompressed bytes that wait for their block to fill
        self._batch: list[
            bytes | bytearray
        ] = []  # compressed bytes that wait to be written together
        self._batched = 0
        self._kinds: dict[str, Kind] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._kinds

    def add(self, entry: Entry, content: Iterable[bytes] = ()) -> None:
        """Append an entry; ``content`` must hold exactly ``entry.size`` bytes."""
        self._head(entry)
        length = 0
        for piece in content:
            length += len(piece)
            self._append(piece)
        if length != entry.size:
            raise HostileInput(f"{entry.path} has {length} bytes where {entry.size} were stated")
        self._append(bytes(-length % _RECORD))

    def splice(self, entry: Entry, deflated: Iterable[bytes], crc32: int) -> None:
        """Append a file whose content is already a raw deflate stream (RFC 1951), as it is.

        The stream is inflated once, for the diff_id and to be checked: it must end exactly
        where its bytes do, and agree with ``entry.size`` and ``crc32``. A file of up to `SMALL`
        bytes is compressed with its neighbours instead. Raises `HostileInput`.
        """
        if entry.size <= SMALL:
            self.add(entry, _inflated(deflated, entry.size, crc32))
            return
        self._head(entry)
        self._flush()
        self._emit(_MEMBER_HEAD)
        for data in _inflated(self._emitting(deflated), entry.size, crc32):
            self._diff_id.update(data)
        self._unpacked += entry.size
        self._emit(struct.pack("<II", crc32, entry.size & 0xFFFFFFFF))
        self._append(bytes(-entry.size % _RECORD))

    def close(self) -> Written:
        """End the archive and return its digests; the sink is left open."""
        self._append(_END)
        self._flush()
        self._write_batch()
        return Written(
            digest=Digest(self._digest.hexdigest()),
            diff_id=Digest(self._diff_id.hexdigest()),
            size=self._size,
            unpacked_size=self._unpacked,
        )

    def _head(self, entry: Entry) -> None:
        path = entry.path
        check_path(path)
        self._parents(path)
        if path in self._kinds:
            raise HostileInput(f"{path} stands in the layer twice")
        self._kinds[path] = entry.kind
        self._append(_header(entry))

    def _parents(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if not parent:
            return
        kind = self._kinds.get(parent)
        if kind is None:
            self._head(Entry(path=parent, kind=Kind.DIRECTORY, mode=0o755))
        elif kind is not Kind.DIRECTORY:
            raise HostileInput(f"{path} would stand inside {parent}, which is not a directory")

    def _append(self, data: bytes) -> None:
        self._plain += data
        if len(self._plain) >= BLOCK:
            whole = len(self._plain) // BLOCK * BLOCK
            with memoryview(self._plain) as view:
                for at in range(0, whole, BLOCK):
                    self._compress(view[at : at + BLOCK])
            del self._plain[:whole]

    def _flush(self) -> None:
        if self._plain:
            self._compress(self._plain)
            self._plain.clear()

    def _compress(self, block: bytearray | memoryview) -> None:
        self._diff_id.update(block)
        self._unpacked += len(block)
        self._emit(_MEMBER_HEAD)
        self._emit(deflate.deflate_compress(block, LEVEL))
        self._emit(struct.pack("<II", deflate.crc32(block), len(block)))

    def _emitting(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._emit(piece)
            yield piece

    def _emit(self, data: bytes | bytearray) -> None:
        self._batch.append(data)
        self._batched += len(data)
        if self._batched >= _BATCH:
            self._write_batch()

    def _write_batch(self) -> None:
        data = b"".join(self._batch)
        self._digest.update(data)
        self._sink.write(data)
        self._size += len(data)
        self._batch.clear()
        self._batched = 0


class PlainTar:
    """Writes an uncompressed tar, as whole images are handed from one tool to another.

    Parents are not added: those who read such archives look files up by name.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def add(self, entry: Entry, content: Iterable[bytes] = ()) -> None:
        """Append an entry; ``content`` must hold exactly ``entry.size`` bytes."""
        check_path(entry.path)
        self._sink.write(_header(entry))
        length = 0
        for piece in content:
            length += len(piece)
            self._sink.write(piece)
        if length != entry.size:
            raise HostileInput(f"{entry.path} has {length} bytes where {entry.size} were stated")
        self._sink.write(bytes(-length % _RECORD))

    def close(self) -> None:
        """End the archive; the sink is left open."""
        self._sink.write(_END)


def _header(entry: Entry) -> bytes:
    """Encode an entry's header records: ustar, with pax records before it for what is too long.

    Source: POSIX.1-2001, pax, "ustar Interchange Format" and "pax Header Block". The bytes are
    those of Python's tarfile; written here since another Python's tarfile may write others.
    """
    name = f"{entry.path}/" if entry.kind is Kind.DIRECTORY else entry.path
    size = entry.size if entry.kind is Kind.FILE else 0
    extended = _extended(name, entry.target, size=size, uid=entry.uid, gid=entry.gid)
    ustar = _ustar(
        name.encode("ascii", "replace")[:_NAME],
        entry.kind.value,
        mode=entry.mode & 0o7777,
        # What a pax record says is left out here.
        uid=entry.uid if entry.uid <= _ID else 0,
        gid=entry.gid if entry.gid <= _ID else 0,
        size=size if size <= _SIZE else 0,
        target=entry.target.encode("ascii", "replace")[:_NAME],
    )
    return extended + ustar if extended else ustar


def _extended(name: str, target: str, *, size: int, uid: int, gid: int) -> bytes:
    """Encode the pax header of what the ustar header has no room for; none is no bytes."""
    if (
        len(name) <= _NAME >= len(target)
        and name.isascii()
        and target.isascii()
        and size <= _SIZE
        and uid <= _ID >= gid
    ):
        return b""
    records = [
        _pax_record(keyword, text)
        for keyword, text in (("path", name), ("linkpath", target))
        if len(text) > _NAME or not text.isascii()
    ]
    for keyword, number, limit in (("uid", uid, _ID), ("gid", gid, _ID), ("size", size, _SIZE)):
        if number > limit:
            records.append(_pax_record(keyword, str(number)))
    content = b"".join(records)
    head = _ustar(b"././@PaxHeader", b"x", size=len(content))
    return head + content + bytes(-len(content) % _RECORD)


def _ustar(
    name: bytes,
    kind: bytes,
    *,
    size: int,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    target: bytes = b"",
) -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, 0)
    # "The chksum field shall represent the simple sum of all octets in the header logical
    # record", with the field itself taken as spaces.
    checksum = _FIXED + sum(name) + sum(numbers) + sum(kind) + sum(target)
    return b"".join(
        (
            name.ljust(_NAME, b"\0"),
            numbers,
            b"%06o\0 " % checksum,
            kind,
            target.ljust(_NAME, b"\0"),
            _MAGIC,
            _REST,
        )
    )


def _pax_record(keyword: str, value: str) -> bytes:
    # "%d %s=%s\n": the number counts the whole record, its own digits too.
    tail = b" %b=%b\n" % (keyword.encode(), value.encode())
    length = len(tail) + 1
    while len(str(length)) + len(tail) != length:
        length = len(str(length)) + len(tail)
    return b"%d%b" % (length, tail)


def _inflated(deflated: Iterable[bytes], size: int, crc32: int) -> Iterator[bytes]:
    """Inflate a stream a little at a time: one that grows a thousandfold fills no memory.

    Raises `HostileInput` unless the stream ends where its pieces do, and what it holds has
    ``size`` bytes and ``crc32``.
    """
    inflater = isal_zlib.decompressobj(-15)
    length, running = 0, 0
    for piece in deflated:
        waiting = piece
        while True:
            try:
                data = inflater.decompress(waiting, _INFLATED)
            except isal_zlib.error as error:  # type: ignore[misc] # its stub declares a value
                raise HostileInput(f"its compressed data is damaged ({error})") from None
            length += len(data)
            if length > size:
                raise HostileInput(f"it inflates to more than the {size} bytes it states")
            running = deflate.crc32(data, running)
            yield data
            waiting = inflater.unconsumed_tail
            if inflater.eof or (not waiting and len(data) < _INFLATED):
                break
        if inflater.unused_data:
            raise HostileInput("bytes follow the end of its compressed data")
    if not inflater.eof:
        raise HostileInput("its compressed data ends too early")
    if length != size:
        raise HostileInput(f"it inflates to {length} bytes and states {size}")
    if running != crc32:
        raise HostileInput(f"its crc32 is {running:08x} and it states {crc32:08x}")


def check_path(path: str) -> None:
    """Raise `HostileInput` unless a path is relative, normal, and stays below the root."""
    if not _FORBIDDEN.isdisjoint(path.split("/")) or "\0" in path:
        raise HostileInput(f"{path!r} is not a plain relative path")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise HostileInput(f"{path!r} is not a path in UTF-8") from None
