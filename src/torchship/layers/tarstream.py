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
_MAX_EXTENDED_SUM = 512 << 20  # bytes of all of them: 256 for each of two million members
_MAX_IN_A_ROW = 8  # before one member: a writer needs one of each kind
_MAX_HEADERS = 4_000_000  # with extended ones, which an archive may have for each member
_KEYWORDS = frozenset((b"path", b"linkpath", b"size", b"uid", b"gid"))
_SPARSE_KEYWORDS = b"GNU.sparse"
_DIGITS, _NEWLINE = 7, ord("\n")
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
    extensions = _Extensions(source)
    for _ in range(_MAX_HEADERS):
        header = _exactly(source, BLOCK)
        if not header.strip(b"\0"):
            return
        member = _parse(header)
        if not extensions.take(member):
            _complete(member, extensions.found)
            yield member
            extensions.found = {}
            extensions.row = 0
    raise HostileInput(f"its tar archive has more than {_MAX_HEADERS} headers")


class _Extensions:
    """What extended headers say of the member that comes next, and how many bytes they all have."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._bytes = 0
        self.row = 0
        self.found: dict[str, bytes] = {}

    def take(self, member: Member) -> bool:
        """Read an extended header to its end; False where it is none."""
        if member.kind in (_EXTENDED, _SOLARIS_EXTENDED):
            self.found.update(_records(self._payload(member.size)))
        elif member.kind == _GLOBAL:
            self._payload(member.size)  # comments, such as git's commit
        elif member.kind == _LONG_NAME:
            self.found["path"] = self._payload(member.size).rstrip(b"\0")
        elif member.kind == _LONG_LINK:
            self.found["linkpath"] = self._payload(member.size).rstrip(b"\0")
        else:
            return False
        return True

    def _payload(self, size: int) -> bytes:
        self.row += 1
        self._bytes += size
        if size > _MAX_EXTENDED:
            raise HostileInput(f"its tar archive has an extended header of {size} bytes")
        if self.row > _MAX_IN_A_ROW:
            raise HostileInput("its tar archive has extended headers that belong to no member")
        if self._bytes > _MAX_EXTENDED_SUM:
            raise HostileInput(f"its extended headers have more than {_MAX_EXTENDED_SUM} bytes")
        return _exactly(self._source, size + -size % BLOCK)[:size]


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


def _records(payload: bytes) -> dict[str, bytes]:
    """Read pax records: a length that counts all of it, KEYWORD=VALUE, and a newline.

    What says nothing of a member that matters here is checked, and left out.
    """
    found: dict[str, bytes] = {}
    at = 0
    while at < len(payload):
        space = payload.find(b" ", at, at + _DIGITS + 1)
        digits = payload[at:space] if space >= 0 else b""
        end = at + int(digits) if digits.isdigit() else at
        equals = payload.find(b"=", space, end)
        if equals < 0 or end > len(payload) or payload[end - 1] != _NEWLINE:
            raise HostileInput("its tar archive has a damaged pax header")
        keyword = payload[space + 1 : equals]
        if keyword in _KEYWORDS or keyword.startswith(_SPARSE_KEYWORDS):
            found[keyword.decode("utf-8", "replace")] = payload[equals + 1 : end - 1]
        at = end
    return found


def _exactly(source: Source, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise HostileInput("its tar archive ends too early")
    return data
