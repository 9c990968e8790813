"""Reads .deb files, which come from outside: every field is checked, nothing is held whole.

A .deb is an ar archive of three members: ``debian-binary``, ``control.tar*`` and ``data.tar*``
(deb(5), "Format"). The data is a tar stream, read once from front to back.
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from isal import isal_zlib
from msgspec import Struct

from torchship.digest import chunks
from torchship.errors import HostileInput, PackageError
from torchship.layers import tarstream
from torchship.layers.archive import BLOCK, Kind, check_path

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
_CONTROL_LIMIT = 16 << 20  # debconf's templates make the largest control members: about 1 MB
_WINDOW = 256 << 20  # bytes a decompressor may allocate; xz -9 needs 65 MB
_BUFFER = 1 << 18  # bytes decompressed at a time
_EXPANSION = 200  # real packages inflate to less than 50 times their size
_KINDS = {kind.value: kind for kind in Kind}


class Section(Struct, frozen=True, kw_only=True):
    """One member of the ar archive: its bytes are ``size`` from ``offset`` on."""

    name: str
    offset: int
    size: int


class Member(Struct, frozen=True, kw_only=True):
    """One path of a package: relative and normal. ``content`` is there until the next one."""

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    target: str
    content: Iterable[bytes]


class Deb(Struct, frozen=True, kw_only=True):
    """An opened package: its place in the file, and what dpkg's database says of it.

    ``control`` is its paragraph, without a status; ``md5sums`` (deb-md5sums(5)) has a line for
    each file, which dpkg and scanners read.
    """

    label: str
    path: Path
    control: str
    md5sums: str
    data: Section

    def members(self) -> Iterator[Member]:
        """Yield what the package holds, in its own order; raise `PackageError` for anything odd.

        Devices, fifos and sparse files are refused: no package that an image needs has one.
        """
        limit = self.data.size * _EXPANSION + (64 << 20)
        with self.path.open("rb") as stream, _reading(self.label):
            plain = _Plain(_decompress(stream, self.data), limit)
            for found in tarstream.members(plain):
                end = plain.position + found.size + -found.size % tarstream.BLOCK
                if found.path.rstrip(b"/") not in (b".", b""):
                    yield self._member(found, plain)
                plain.skip(end - plain.position)

    def _member(self, found: tarstream.Member, plain: _Plain) -> Member:
        path = _normal(self.label, found.path.decode("utf-8"))
        kind = _KINDS.get(found.kind)
        if kind is None:
            raise PackageError(f"{self.label}: {path} is neither a file, a folder nor a link")
        target = found.link.decode("utf-8") if kind in (Kind.HARDLINK, Kind.SYMLINK) else ""
        if kind is Kind.HARDLINK:
            target = _normal(self.label, target)
        elif kind is Kind.SYMLINK and not target:
            raise PackageError(f"{self.label}: the link {path} points nowhere")
        return Member(
            path=path,
            kind=kind,
            mode=found.mode,
            uid=found.uid,
            gid=found.gid,
            size=found.size,
            target=target,
            content=_content(self.label, path, found.size, plain) if kind is Kind.FILE else (),
        )


def open_deb(path: Path, label: str) -> Deb:
    """Read a package's directory and control file. ``label`` is what errors call it."""
    with path.open("rb") as stream, _reading(label):
        sections = [
            section for section in _sections(stream, label) if not section.name.startswith("_")
        ]
        names = [section.name for section in sections[:3]]
        # deb(5): "the first member is named debian-binary"; then control, then data.
        if (
            len(names) < 3
            or names[0] != "debian-binary"
            or not names[1].startswith("control.tar")
            or not names[2].startswith("data.tar")
        ):
            raise PackageError(f"{label} is not a Debian package: it holds {names}")
        version = b"".join(_raw(stream, sections[0]))[:16]
        if not version.startswith(b"2."):
            raise PackageError(f"{label} has the unknown package format {version!r}")
        control = _control(stream, sections[1], label)
        return Deb(
            label=label,
            path=path,
            control=control["control"],
            md5sums=control.get("md5sums", ""),
            data=sections[2],
        )


def _content(label: str, path: str, size: int, plain: _Plain) -> Iterator[bytes]:
    with _reading(label):
        for piece in plain.pieces(size):
            size -= len(piece)
            yield piece
        if size:
            raise PackageError(f"it ends inside {path}")


def _control(stream: BinaryIO, section: Section, label: str) -> dict[str, str]:
    plain = _Plain(_decompress(stream, section), _CONTROL_LIMIT)
    found = {}
    for member in tarstream.members(plain):
        name = member.path.removeprefix(b"./").decode("utf-8")
        content = plain.read(member.size + -member.size % tarstream.BLOCK)[: member.size]
        if name in ("control", "md5sums") and member.kind == tarstream.REGULAR:
            found[name] = content.decode("utf-8").strip("\n")
    text = found.get("control", "")
    if not text.startswith("Package:") or "\n\n" in text:
        raise PackageError(f"{label}: its control file is not one paragraph about a package")
    return found


def _sections(stream: BinaryIO, label: str) -> Iterator[Section]:
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if stream.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise PackageError(f"{label} is not a Debian package: it is no ar archive")
    offset = len(_AR_MAGIC)
    while offset < end:
        stream.seek(offset)
        header = stream.read(_AR_HEADER)
        size_field = header[48:58].rstrip(b" ")
        if len(header) != _AR_HEADER or header[58:] != b"`\n" or not size_field.isdigit():
            raise PackageError(f"{label} has a damaged directory at byte {offset}")
        name = header[:16].decode("ascii").rstrip(" ").removesuffix("/")
        size = int(size_field)
        offset += _AR_HEADER
        if offset + size > end:
            raise PackageError(f"{label} ends inside {name}: it is truncated")
        yield Section(name=name, offset=offset, size=size)
        offset += size + size % 2  # ar(5): members start at even bytes


def _raw(stream: BinaryIO, section: Section) -> Iterator[bytes]:
    stream.seek(section.offset)
    return chunks(stream, section.size)


def _decompress(stream: BinaryIO, section: Section) -> Iterator[bytes]:
    raw = _raw(stream, section)
    suffix = section.name.partition(".tar")[2]
    if suffix == "":
        return raw
    if suffix == ".xz":
        return _xz(raw)
    if suffix == ".gz":
        return _gzip(raw)
    if suffix == ".zst":
        return _zstd(raw)
    raise PackageError(f"it is compressed as {suffix}, which no current package is")


def _xz(raw: Iterator[bytes]) -> Iterator[bytes]:
    engine = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW)
    for piece in raw:
        data = engine.decompress(piece, _BUFFER)
        while data or not (engine.needs_input or engine.eof):
            yield data
            data = b"" if engine.eof else engine.decompress(b"", _BUFFER)
    if not engine.eof or engine.unused_data:
        raise PackageError("its compressed data does not end where it should")


def _gzip(raw: Iterator[bytes]) -> Iterator[bytes]:
    engine = isal_zlib.decompressobj(zlib.MAX_WBITS | 16)
    for piece in raw:
        data = engine.decompress(piece, BLOCK)
        while data:
            yield data
            data = b"" if engine.eof else engine.decompress(engine.unconsumed_tail, BLOCK)
    if not engine.eof or engine.unused_data:
        raise PackageError("its compressed data does not end where it should")


def _zstd(raw: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard  # Ubuntu's packages have it; Debian's do not yet

    class _Source(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:  # noqa: ARG002 (pieces have their own size)
            return next(raw, b"")

    engine = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    with engine.stream_reader(_Source(), read_across_frames=True) as reader:  # type: ignore[arg-type] # only read is used
        while data := reader.read(BLOCK):
            yield data


class _Plain:
    """The decompressed pieces as one stream, up to a limit of bytes."""

    def __init__(self, pieces: Iterator[bytes], limit: int) -> None:
        self._waiting = pieces
        self._left = limit
        self._piece = b""
        self._at = 0
        self.position = 0
        """Bytes read so far."""

    def read(self, size: int, /) -> bytes:
        """Return exactly ``size`` bytes, or fewer at the end."""
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next ``size`` bytes as they come, or fewer at the end."""
        while size > 0:
            if self._at == len(self._piece):
                self._piece, self._at = next(self._waiting, b""), 0
                self._left -= len(self._piece)
                if self._left < 0:
                    raise PackageError("it inflates to far more than a package does")
                if not self._piece:
                    return
            part = self._piece[self._at : self._at + size]
            self._at += len(part)
            self.position += len(part)
            size -= len(part)
            yield part

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes, or what is left."""
        for _ in self.pieces(size):
            pass


def _normal(label: str, name: str) -> str:
    path = name.removeprefix("./").rstrip("/")
    try:
        check_path(path)
    except HostileInput as error:
        raise PackageError(f"{label}: {error.message}") from None
    return path


@contextmanager
def _reading(label: str) -> Iterator[None]:
    """Turn the faults of the formats below into `PackageError` that names the package."""
    try:
        yield
    except HostileInput as error:
        if error.message.startswith(label):
            raise
        raise PackageError(f"{label}: {error.message}", hint=error.hint) from None
    except (lzma.LZMAError, isal_zlib.error, UnicodeDecodeError) as error:  # type: ignore[misc] # isal's stub declares a value
        raise PackageError(f"{label} is damaged ({error})") from None
