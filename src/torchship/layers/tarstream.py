"""Reading a tar archive from a stream, header by header, trusting none of it.

Packages and layers are read with it: Python's tarfile takes three times as long, and accepts
sizes that lead backwards.

Source: POSIX.1-2001, pax, "ustar Interchange Format" and "pax Header Block"; and what GNU tar
writes, which both packages and layers may use: long names (types L and K), numbers in base 256.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

from torchship.errors import HostileInput

BLOCK = 512
REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (
    *(b"0", b"1", b"2", b"3", b"4", b"5", b"6"),
)

_OLD_REGULAR, _CONTIGUOUS = b"\0", b"7"
_EXTENDED, _SOLARIS_EXTENDED, _GLOBAL = b"x", b"X", b"g"
_LONG_NAME, _LONG_LINK, _SPARSE = b"L", b"K", b"S"  # GNU tar
_MAX_EXTENDED = 1 << 20  # bytes of a pax header or long name: real ones hold a path
# name, mode, uid, gid, size, (mtime), chksum, typeflag, linkname, magic, (version, uname,
# gname), devmajor, devminor, prefix
_HEADER = struct.Struct("100s8s8s8s12s12x8sc100s6s66x8s8s155s12x")
_SIGNED = struct.Struct("512b")
_CHECKSUM = slice(148, 156)


class Source(Protocol):
    """Where the archive comes from."""

    def read(self, size: int, /) -> bytes:
        """Return exactly ``size`` bytes, or fewer at the end."""


class Member(Struct, kw_only=True):
    """One entry. ``path`` and ``link`` are bytes, as they stand in the archive."""

    path: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    link: bytes
    device: tuple[int, int]


def members(source: Source) -> Iterator[Member]:
    """Yield the entries; the caller reads ``size`` bytes and the padding of each before the next.

    Raises `HostileInput` for a header that is damaged or that this reader does not know.
    """
    extended: dict[str, bytes] = {}
    while True:
        header = _exactly(source, BLOCK)
        if not header.strip(b"\0"):
            return
        member = _parse(header)
        if member.kind in (_EXTENDED, _SOLARIS_EXTENDED):
            extended.update(_records(_payload(source, member.size)))
        elif member.kind == _GLOBAL:
            _payload(source, member.size)  # comments, such as git's commit
        elif member.kind == _LONG_NAME:
            extended["path"] = _payload(source, member.size).rstrip(b"\0")
        elif member.kind == _LONG_LINK:
            extended["linkpath"] = _payload(source, member.size).rstrip(b"\0")
        else:
            _complete(member, extended)
            yield member
            extended = {}


def _parse(header: bytes) -> Member:
    name, mode, uid, gid, size, checksum, kind, link, magic, major, minor, prefix = _HEADER.unpack(
        header
    )
    # "The simple sum of all octets in the header logical record", its own taken as spaces; some
    # old writers took the octets for signed.
    stated, own = _number(checksum), header[_CHECKSUM]
    if (
        stated != sum(header) - sum(own) + 8 * ord(" ")
        and stated != sum(_SIGNED.unpack(header)) - sum(struct.unpack("8b", own)) + 8 * ord(" ")
    ):  # fmt: skip
        raise HostileInput("its tar archive is damaged (bad checksum)")
    path = name.partition(b"\0")[0]
    if kind == _OLD_REGULAR and path.endswith(b"/"):
        kind = DIRECTORY
    above = prefix.partition(b"\0")[0]
    if above and magic == b"ustar\0":  # GNU tar has times in its place
        path = above + b"/" + path
    return Member(
        path=path,
        kind=REGULAR if kind in (_OLD_REGULAR, _CONTIGUOUS) else kind,
        mode=_number(mode) & 0o7777,
        uid=_number(uid),
        gid=_number(gid),
        size=_number(size),
        link=link.partition(b"\0")[0],
        device=(_number(major), _number(minor)) if kind in (CHARACTER, BLOCK_DEVICE) else (0, 0),
    )


def _number(field: bytes) -> int:
    """Read a header's number: octal digits, or GNU's base 256, marked by the first bit."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    try:
        if not digits or digits.isdigit():  # int() would take signs and underscores too
            return int(digits or b"0", 8)
    except ValueError:
        pass
    raise HostileInput(f"its tar archive is damaged (a number is {field!r})")


def _complete(member: Member, extended: dict[str, bytes]) -> None:
    """Put what extended headers said of a member in place."""
    member.path = extended.get("path") or member.path
    member.link = extended.get("linkpath") or member.link
    shown = member.path.decode("utf-8", "replace")
    if member.kind == _SPARSE or any(key.startswith("GNU.sparse") for key in extended):
        raise HostileInput(f"{shown} is a sparse file, which archives of this kind do not hold")
    for keyword in ("size", "uid", "gid"):
        if keyword in extended:
            if not extended[keyword].isdigit() or len(extended[keyword]) > 20:
                raise HostileInput(f"{shown} states a {keyword} that is not a number")
            setattr(member, keyword, int(extended[keyword]))
    if member.kind != REGULAR:
        if member.size and member.kind not in (HARDLINK, SYMLINK, DIRECTORY):
            raise HostileInput(f"{shown} is no file and has a size")
        member.size = 0


def _payload(source: Source, size: int) -> bytes:
    if size > _MAX_EXTENDED:
        raise HostileInput(f"its tar archive has an extended header of {size} bytes")
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
            raise HostileInput("its tar archive has a damaged pax header")
        found[keyword.decode("utf-8", "replace")] = value[:-1]
        payload = payload[length:]
    return found


def _exactly(source: Source, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise HostileInput("its tar archive ends too early")
    return data
