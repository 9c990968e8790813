"""Reads wheels as zip files, and believes none of them.

Two readers of one zip file can see two different sets of files, by way of local headers that
differ from the central directory, of overlaps, of gaps. A wheel that leaves room for that is
refused: each byte of it belongs to exactly one member or to the directory.

Source: PKWARE's .ZIP File Format Specification (APPNOTE.TXT) 6.3.10; sections in comments.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import deflate
from isal import isal_zlib
from msgspec import Struct

from torchship.errors import WheelError
from torchship.layers.zipdirectory import (
    UTF8,
    Directory,
    Record,
    ZipFile,
    read_directory,
    widen,
    zip64_values,
)

UNPACKED = 64 << 30
"""The most bytes that a wheel may unpack to; the largest CUDA wheels come to 4 GiB."""

RATIO = 100
"""How many times its own size a wheel may unpack to, once that is more than `SMALL`."""

SMALL = 64 << 20
"""Bytes that any wheel may unpack to, whatever its ratio."""

PIECE = 1 << 18
"""Bytes of a member read at a time."""

_STORED, _DEFLATED = 0, 8  # 4.4.5
_ENCRYPTED, _DESCRIPTOR = 1 << 0, 1 << 3  # 4.4.4
_FLAGS = 0b110 | _DESCRIPTOR | UTF8  # bits 1 and 2 only tell how hard the encoder tried

_LOCAL = struct.Struct("<4s5H3I2H")  # 4.3.7
_DESCRIPTORS = {  # 4.3.9: with or without a signature, sizes of 4 or 8 bytes
    12: struct.Struct("<0s3I"),
    16: struct.Struct("<4s3I"),
    20: struct.Struct("<0sI2Q"),
    24: struct.Struct("<4sI2Q"),
}
_MAX32 = 0xFFFFFFFF


class Member(Struct, frozen=True, kw_only=True):
    """A file in a wheel. Sizes in bytes; ``offset`` is where its compressed bytes begin."""

    name: str
    size: int
    compressed: int
    crc32: int
    deflated: bool
    executable: bool
    offset: int


class WheelZip:
    """An open wheel, whose members all agree with the directory and with one another.

    ``name`` is what errors call it. What the compressed bytes hold is checked by who inflates
    them: `read`, or `Archive.splice`. Raises `WheelError`.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._file = ZipFile(path, name)
        try:
            self.members = self._scan(read_directory(self._file))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def error(self, fault: str, member: str | None = None) -> WheelError:
        """Make the error that names this wheel, the member and the fault."""
        return self._file.error(fault, member)

    def pieces(self, member: Member) -> Iterator[bytes]:
        """Yield a member's bytes as they are in the file: deflated, or stored."""
        offset, left = member.offset, member.compressed
        while left:
            piece = self._file.at(offset, min(left, PIECE))
            yield piece
            offset += len(piece)
            left -= len(piece)

    def head(self, member: Member, size: int) -> bytes:
        """Return up to ``size`` of the first bytes of a member, inflated, unchecked."""
        first = next(self.pieces(member), b"")
        if not member.deflated:
            return first[:size]
        try:
            return isal_zlib.decompressobj(-15).decompress(first, size)
        except isal_zlib.error as error:  # type: ignore[misc] # its stub declares a value
            raise self.error(f"has damaged compressed data ({error})", member.name) from None

    def read(self, member: Member, limit: int) -> bytes:
        """Return a whole member, inflated and checked; more than ``limit`` bytes are an error."""
        if max(member.size, member.compressed) > limit:
            raise self.error(f"has {member.size} bytes where {limit} are enough", member.name)
        data = b"".join(self.pieces(member))
        if member.deflated:
            inflater = isal_zlib.decompressobj(-15)
            try:
                data = inflater.decompress(data, member.size + 1)
            except isal_zlib.error as error:  # type: ignore[misc] # its stub declares a value
                raise self.error(f"has damaged compressed data ({error})", member.name) from None
            if not inflater.eof or inflater.unused_data:
                raise self.error("has compressed data that does not end at its end", member.name)
        if len(data) != member.size or deflate.crc32(data) != member.crc32:
            raise self.error("is not what its size and crc32 state", member.name)
        return data

    def _scan(self, directory: Directory) -> tuple[Member, ...]:
        records = directory.records
        self._check_total(records)
        members = []
        position = 0
        ends = (*(record.header for record in records[1:]), directory.offset)
        for record, end in zip(records, ends, strict=False):  # no records: no ends
            if record.header != position:
                raise self.error("begins after bytes that belong to nothing", record.name)
            member = self._check_member(record, end)
            if member is not None:
                members.append(member)
            position = end
        if position != directory.offset:
            raise self.error("has bytes before its directory that belong to nothing")
        return tuple(members)

    def _check_total(self, records: tuple[Record, ...]) -> None:
        total = sum(record.size for record in records)
        if total > UNPACKED or total > max(SMALL, RATIO * self._file.length):
            raise self.error(
                f"would unpack to {total} bytes, from {self._file.length}: it looks like a zip bomb"
            )

    def _check_member(self, record: Record, end: int) -> Member | None:
        """Check one member, which must fill the file from its header to ``end``."""
        name = record.name
        is_directory = name.endswith("/")
        kind = stat.S_IFMT(record.mode)
        # Some builders give a directory a file's mode: the slash at its end says what it is.
        allowed = (0, stat.S_IFREG, stat.S_IFDIR) if is_directory else (0, stat.S_IFREG)
        if kind not in allowed:
            what = "a symlink" if kind == stat.S_IFLNK else "neither a file nor a directory"
            raise self.error(f"is {what}: wheels hold files", name)
        if record.flags & _ENCRYPTED:
            raise self.error("is encrypted", name)
        if record.flags & ~_FLAGS:
            raise self.error(f"has flags {record.flags:#06x}, which wheels do not use", name)
        if record.method not in (_STORED, _DEFLATED):
            raise self.error(f"is compressed by method {record.method}, not by deflate", name)
        if record.method == _STORED and record.size != record.compressed:
            raise self.error("is stored, and states two sizes", name)
        if is_directory and record.size:
            raise self.error("is a directory with bytes in it", name)
        offset = self._check_local(record, end)
        if is_directory:
            return None
        return Member(
            name=name,
            size=record.size,
            compressed=record.compressed,
            crc32=record.crc32,
            deflated=record.method == _DEFLATED,
            # pip's rule: any x bit of what the zip calls a regular file.
            executable=kind == stat.S_IFREG and bool(record.mode & 0o111),
            offset=offset,
        )

    def _check_local(self, record: Record, end: int) -> int:
        """Compare the local header, and the data descriptor, with the directory's entry."""
        name = record.name
        start = record.header + _LOCAL.size + len(record.raw)
        if start > end:
            raise self.error("overlaps what follows it", name)
        head = self._file.at(record.header, _LOCAL.size + len(record.raw))
        signature, _, flags, method, _, _, *sums, name_size, extra_size = _LOCAL.unpack_from(head)
        if signature != b"PK\x03\x04":
            raise self.error("has no local header where the directory says", name)
        if head[_LOCAL.size :] != record.raw or name_size != len(record.raw):
            raise self.error("has another name in its local header", name)
        if (flags, method) != (record.flags, record.method):
            raise self.error("has another method or other flags in its local header", name)
        data: int = start + extra_size
        gap = end - data - record.compressed
        if gap < 0:
            raise self.error("overlaps what follows it", name)
        stated = (record.crc32, record.compressed, record.size)
        if _MAX32 in sums[1:]:
            wide = zip64_values(self._file, self._file.at(start, extra_size), name)
            size = widen(self._file, sums[2], wide, name)  # the uncompressed size comes first
            sums = [sums[0], widen(self._file, sums[1], wide, name), size]
        # 4.4.4, bit 3: "the fields crc-32, compressed size and uncompressed size are set to
        # zero in the local header. The correct values are put in the data descriptor".
        described = bool(flags & _DESCRIPTOR)
        if tuple(sums) != stated and not (described and not any(sums)):
            raise self.error("has another crc32 or size in its local header", name)
        if described:
            self._check_descriptor(name, stated, data + record.compressed, gap)
        elif gap:
            raise self.error(f"is followed by {gap} bytes that belong to nothing", name)
        return data

    def _check_descriptor(
        self, name: str, stated: tuple[int, int, int], offset: int, size: int
    ) -> None:
        form = _DESCRIPTORS.get(size)
        if form is None:
            raise self.error("has no data descriptor, or more than one", name)
        signature, *sums = form.unpack(self._file.at(offset, size))
        if signature not in (b"", b"PK\x07\x08") or tuple(sums) != stated:
            raise self.error("has another crc32 or size in its data descriptor", name)
