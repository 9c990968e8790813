"""The central directory of a zip file: found, read, and held to what its end says.

Source: PKWARE's .ZIP File Format Specification (APPNOTE.TXT) 6.3.10; sections in comments.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from torchship.errors import HostileInput, WheelError
from torchship.layers.archive import check_path

MEMBERS = 1 << 18
"""The most members that a wheel may have; torch has 12,000."""

UTF8 = 1 << 11
"""4.4.4, bit 11: the name is UTF-8."""

_HINT = "Delete the file and fetch it again; if it stays so, tell the package's maintainers."
_WINDOW = 1 << 14  # bytes read at least
_DIRECTORY = 64 << 20  # bytes of central directory; torch's has 1.3 million

_CENTRAL = struct.Struct("<4s6H3I5H2I")  # 4.3.12
_LOCAL_SIZE = 30  # 4.3.7; its last two fields are the sizes of the name and of the extra fields
_END = struct.Struct("<4s4H2IH")  # 4.3.16
_END64 = struct.Struct("<4sQ2H2I4Q")  # 4.3.14
_LOCATOR = struct.Struct("<4sIQI")  # 4.3.15
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF


class Record(Struct, frozen=True, kw_only=True):
    """An entry of the central directory, with its zip64 values put in place.

    ``header`` is where its local header begins, ``raw`` the name's bytes, ``mode`` that of Unix.
    """

    name: str
    raw: bytes
    flags: int
    method: int
    crc32: int
    compressed: int
    size: int
    mode: int
    header: int


class Directory(Struct, frozen=True, kw_only=True):
    """The central directory: its records by where their members stand, and where it begins."""

    records: tuple[Record, ...]
    offset: int


class _End(Struct, frozen=True, kw_only=True):
    """What the end of a zip file says: where the directory is, and how much is in it."""

    offset: int
    size: int
    entries: int


class ZipFile:
    """An open file that claims to be a zip; ``name`` is what errors call it."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._window = b""  # what was read last, from self._begin on
        self._begin = 0
        self.length = os.fstat(self._file).st_size

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def at(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``; raise `WheelError` if there are fewer."""
        if size > _WINDOW:
            data = os.pread(self._file, size, offset)
        else:  # most members are smaller than a page, and stand one after the other
            if not self._begin <= offset <= self._begin + len(self._window) - size:
                self._window, self._begin = os.pread(self._file, _WINDOW, offset), offset
            data = self._window[offset - self._begin : offset - self._begin + size]
        if len(data) != size:
            raise self.error("ends too early")
        return data

    def error(self, fault: str, member: str | None = None) -> WheelError:
        """Make the error that names the wheel, the member and the fault."""
        where = self.name if member is None else f"{self.name}: {member!r}"
        return WheelError(f"{where} {fault}", hint=_HINT)


def read_directory(file: ZipFile) -> Directory:
    """Read and check the central directory; raise `WheelError` for one that can be read twice."""
    end = _find_end(file)
    data = file.at(end.offset, end.size)
    records: list[Record] = []
    names: set[str] = set()
    position = 0
    for _ in range(end.entries):
        if position + _CENTRAL.size > len(data) or not data.startswith(b"PK\x01\x02", position):
            raise file.error("has a damaged directory")
        record, position = _read_record(file, data, position)
        name = record.name.removesuffix("/")
        if name in names:
            raise file.error("stands in it twice", record.name)
        names.add(name)
        records.append(record)
    if position != len(data):
        raise file.error("has more in its directory than it states")
    records.sort(key=lambda record: record.header)
    return Directory(records=tuple(records), offset=end.offset)


def begin(file: ZipFile, record: Record) -> int:
    """Return where a member's bytes begin, by its local header (4.3.7), which is not checked."""
    head = file.at(record.header, _LOCAL_SIZE)
    name_size, extra_size = (
        int.from_bytes(head[26:28], "little"),
        int.from_bytes(head[28:], "little"),
    )
    return record.header + _LOCAL_SIZE + name_size + extra_size


def _read_record(file: ZipFile, data: bytes, position: int) -> tuple[Record, int]:
    (_, _, _, flags, method, _, _, crc32, compressed, size, name_size, extra_size, comment_size,
     disk, _, attributes, header) = _CENTRAL.unpack_from(data, position)  # fmt: skip
    start = position + _CENTRAL.size
    raw = data[start : start + name_size]
    extra = data[start + name_size : start + name_size + extra_size]
    end = start + name_size + extra_size + comment_size
    if end > len(data):
        raise file.error("has a damaged directory")
    name = _decode(file, raw, flags)
    if extra or _MAX32 in (size, compressed, header):
        # 4.5.3: only the fields that are full stand in the zip64 extra, in this order.
        wide = zip64_values(file, extra, name)
        size = widen(file, size, wide, name)
        compressed = widen(file, compressed, wide, name)
        header = widen(file, header, wide, name)
    if disk != 0:
        raise file.error("is on another disk", name)
    record = Record(
        name=name,
        raw=raw,
        flags=flags,
        method=method,
        crc32=crc32,
        compressed=compressed,
        size=size,
        mode=attributes >> 16,
        header=header,
    )
    return record, end


def _decode(file: ZipFile, raw: bytes, flags: int) -> str:
    # 4.4.4, bit 11. Without it a name is in code page 437, and tools differ on what it says.
    try:
        name = raw.decode("utf-8" if flags & UTF8 else "ascii")
    except UnicodeDecodeError:
        raise file.error("has a name that is not UTF-8, marked as such", repr(raw)) from None
    try:
        check_path(name.removesuffix("/"))
    except HostileInput as error:
        raise file.error(f"has a member whose name is refused: {error}") from None
    if "\\" in name or (len(raw) > 255 and max(map(len, raw.split(b"/"))) > 255):
        raise file.error("has a backslash in its name, or a part of over 255 bytes", name)
    return name


def _find_end(file: ZipFile) -> _End:
    tail_size = min(file.length, _END.size + _MAX16)
    tail = file.at(file.length - tail_size, tail_size)
    # "The end of central directory record" is followed by a comment of stated length only.
    ends = [
        at
        for at in _occurrences(tail, b"PK\x05\x06")
        if at + _END.size <= len(tail)
        and at + _END.size + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail)
    ]
    if not ends:
        raise file.error("is not a zip file, or is cut short, or has bytes after its end")
    if len(ends) > 1:
        raise file.error("has more than one end: readers would not agree on its members")
    _, disk, first, here, entries, size, offset, _ = _END.unpack_from(tail, ends[0])
    end = file.length - tail_size + ends[0]
    locator = end - _LOCATOR.size
    if locator >= 0 and file.at(locator, 4) == b"PK\x06\x07":
        stated = (disk, first, here, entries, size, offset)
        disk, first, here, entries, size, offset = _find_end64(file, locator, stated)
        end = locator - _END64.size
    if disk or first or here != entries:
        raise file.error("is one part of several: wheels are whole")
    if offset + size != end:
        raise file.error("has a directory that is not where its end says")
    if entries > MEMBERS or size > _DIRECTORY:
        raise file.error(f"states {entries} members, more than any wheel has")
    return _End(offset=offset, size=size, entries=entries)


def _find_end64(file: ZipFile, locator: int, narrow: tuple[int, ...]) -> tuple[int, ...]:
    _, disk, offset, disks = _LOCATOR.unpack(file.at(locator, _LOCATOR.size))
    if disk != 0 or disks != 1 or offset != locator - _END64.size:
        raise file.error("has a zip64 end that is not where its locator says")
    signature, length, _, _, *wide = _END64.unpack(file.at(offset, _END64.size))
    if signature != b"PK\x06\x06" or length != _END64.size - 12:
        raise file.error("has a zip64 end that is none")
    # 4.4.1.4: a field that is too small is filled with ones, and stands in the zip64 end.
    limits = (_MAX16,) * 4 + (_MAX32,) * 2
    for stated, value, limit in zip(narrow, wide, limits, strict=True):
        if stated not in (value, limit):
            raise file.error("has two ends that do not agree (zip64)")
    return tuple(wide)


def zip64_values(file: ZipFile, extra: bytes, name: str) -> Iterator[int]:
    """Yield the 8-byte values of a header's zip64 extra field (4.5.3), none where it has none."""
    position, found = 0, b""
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, position)
        body = extra[position + 4 : position + 4 + size]
        if len(body) != size or (kind == 1 and found):
            raise file.error("has damaged extra fields", name)
        if kind == 1:
            found = body
        elif kind == 0x7075 and body[5:] != name.encode():  # 4.6.9, Unicode Path
            raise file.error("has two names that differ", name)
        position += 4 + size
    return (value for (value,) in struct.iter_unpack("<Q", found[: len(found) // 8 * 8]))


def widen(file: ZipFile, narrow: int, wide: Iterator[int], name: str) -> int:
    """Return a 4-byte field, or the next zip64 value where the field is full."""
    if narrow != _MAX32:
        return narrow
    value = next(wide, None)
    if value is None:
        raise file.error("has no zip64 field where its directory entry points to one", name)
    return value


def _occurrences(data: bytes, wanted: bytes) -> Iterator[int]:
    at = data.find(wanted)
    while at >= 0:
        yield at
        at = data.find(wanted, at + 1)
