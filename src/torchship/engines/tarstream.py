"""Reading a tar archive from a stream, header by header, trusting none of it.

Source: POSIX.1-2001 pax interchange format, and GNU tar's long names (types L and K), which
the image-spec (layer.md) lets layers use.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torchship.errors import LayerError

BLOCK = 512
_MAX_EXTENDED = 1 << 20  # bytes of a pax header or long name: real ones hold a path


class Source(Protocol):
    """Where the archive comes from."""

    def read(self, size: int, /) -> bytes:
        """Return exactly ``size`` bytes, or fewer at the end."""


@dataclass(slots=True, kw_only=True)
class Member:
    """One entry. ``path`` and ``link`` are bytes, as they stand in the archive."""

    path: bytes
    kind: bytes
    mode: int
    size: int
    link: bytes
    device: tuple[int, int]


def members(source: Source) -> Iterator[Member]:
    """Yield the entries; the caller reads ``size`` bytes and the padding of each before the next.

    Raises `LayerError` for a header that is damaged or that this reader does not know.
    """
    extended: dict[str, bytes] = {}
    while True:
        header = _exactly(source, BLOCK)
        if not header.strip(b"\0"):
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise LayerError(f"the layer's tar archive is damaged ({error})") from None
        if info.size < 0:
            raise LayerError("the layer's tar archive states a negative size")
        if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            extended.update(_records(_payload(source, info.size)))
        elif info.type == tarfile.XGLTYPE:
            _payload(source, info.size)  # comments, such as git's commit
        elif info.type == tarfile.GNUTYPE_LONGNAME:
            extended["path"] = _payload(source, info.size).rstrip(b"\0")
        elif info.type == tarfile.GNUTYPE_LONGLINK:
            extended["linkpath"] = _payload(source, info.size).rstrip(b"\0")
        else:
            yield _member(info, extended)
            extended = {}


def _member(info: tarfile.TarInfo, extended: dict[str, bytes]) -> Member:
    if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in extended):
        raise LayerError(f"{info.name} is a sparse file, which layers must not hold")
    size = info.size
    if "size" in extended:
        if not extended["size"].isdigit() or len(extended["size"]) > 20:
            raise LayerError(f"{info.name} states a size that is not a number")
        size = int(extended["size"])
    kind = tarfile.REGTYPE if info.type in (tarfile.AREGTYPE, tarfile.CONTTYPE) else info.type
    if kind != tarfile.REGTYPE:
        if size and kind not in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE):
            raise LayerError(f"{info.name} is no file and has a size")
        size = 0
    return Member(
        path=extended.get("path") or info.name.encode("utf-8", "surrogateescape"),
        kind=kind,
        mode=info.mode & 0o7777,
        size=size,
        link=extended.get("linkpath") or info.linkname.encode("utf-8", "surrogateescape"),
        device=(info.devmajor, info.devminor),
    )


def _payload(source: Source, size: int) -> bytes:
    if size > _MAX_EXTENDED:
        raise LayerError(f"the layer has an extended header of {size} bytes")
    return _exactly(source, size + -size % BLOCK)[:size]


def _records(payload: bytes) -> dict[str, bytes]:
    """Read pax records: a length that counts all of it, KEYWORD=VALUE, and a newline."""
    found: dict[str, bytes] = {}
    while payload:
        digits, space, _ = payload.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        record = payload[len(digits) + 1 : length]
        keyword, equals, value = record.partition(b"=")
        if not space or not equals or not value.endswith(b"\n") or length > len(payload):
            raise LayerError("the layer has a damaged pax header")
        found[keyword.decode("utf-8", "replace")] = value[:-1]
        payload = payload[length:]
    return found


def _exactly(source: Source, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise LayerError("the layer ends in the middle of its tar archive")
    return data
