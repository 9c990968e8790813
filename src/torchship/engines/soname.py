"""The name that a shared library is looked for by: ``libcuda.so.1`` of ``libcuda.so.580.65.06``.

Source: System V ABI, "Object Files" and "Dynamic Linking" (ELF), and its 64-bit supplement.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_LOAD, _DYNAMIC_SEGMENT = 1, 2
_STRING_TABLE, _SONAME = 5, 14
_MOST_SEGMENTS = 256
_MOST_ENTRIES = 1 << 16  # bytes of a dynamic section
_LONGEST = 256


def soname(path: Path) -> str | None:
    """Return the DT_SONAME of a 64-bit little-endian library; None for anything else."""
    try:
        with path.open("rb") as stream:
            return _read(stream)
    except (OSError, struct.error, ValueError, OverflowError):
        return None


def _read(stream: BinaryIO) -> str | None:
    header = _HEADER.unpack(stream.read(_HEADER.size))
    identity, start, size, count = header[0], header[5], header[9], header[10]
    if identity[:6] != b"\x7fELF\x02\x01" or size != _SEGMENT.size or count > _MOST_SEGMENTS:
        return None
    stream.seek(start)
    segments = [_SEGMENT.unpack(stream.read(_SEGMENT.size)) for _ in range(count)]
    for kind, _, offset, _, _, length, *_ in segments:
        if kind == _DYNAMIC_SEGMENT:
            stream.seek(offset)
            content = stream.read(min(length, _MOST_ENTRIES))
            content = content[: len(content) // _DYNAMIC.size * _DYNAMIC.size]
            entries = dict(reversed(list(_DYNAMIC.iter_unpack(content))))
            return _string(stream, segments, entries)
    return None


def _string(
    stream: BinaryIO, segments: list[tuple[int, ...]], entries: dict[int, int]
) -> str | None:
    if _SONAME not in entries or _STRING_TABLE not in entries:
        return None
    address = entries[_STRING_TABLE] + entries[_SONAME]
    for kind, _, offset, begins, _, length, *_ in segments:
        if kind == _LOAD and begins <= address < begins + length:
            stream.seek(offset + address - begins)
            name = stream.read(_LONGEST).partition(b"\0")[0].decode("ascii")
            return name if name and "/" not in name else None
    return None
