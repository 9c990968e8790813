"""Reads .deb files, which come from outside: every field is checked, nothing is held whole.

A .deb is an ar archive of three members: ``debian-binary``, ``control.tar*`` and ``data.tar*``
(deb(5), "Format"). The data is a tar stream, read once from front to back.
"""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from isal import isal_zlib

from torchship.digest import chunks
from torchship.errors import HostileInput, PackageError
from torchship.layers.archive import BLOCK, check_path

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
_CONTROL_LIMIT = 16 << 20  # debconf's templates make the largest control members: about 1 MB
_WINDOW = 256 << 20  # bytes a decompressor may allocate; xz -9 needs 65 MB
_BUFFER = 1 << 16  # tarfile copies what is left of its buffer with each header that it reads
_EXPANSION = 200  # real packages inflate to less than 50 times their size
_TYPES = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hard link",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One member of the ar archive: its bytes are ``size`` from ``offset`` on."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One path of a package: relative and normal. ``content`` is good until the next one."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    target: str
    content: IO[bytes] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deb:
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
        with self.path.open("rb") as stream, _reading(self.label):
            limit = self.data.size * _EXPANSION + (64 << 20)
            plain = _Plain(_decompress(stream, self.data), limit)
            with tarfile.open(
                fileobj=plain, mode="r|", bufsize=_BUFFER, encoding="utf-8", errors="strict"
            ) as tar:
                while (info := tar.next()) is not None:
                    if info.name.rstrip("/") not in (".", ""):
                        yield self._member(tar, info)
                    # Else tarfile remembers them all (Python 3.13 has a switch for it).
                    tar.members.clear()  # type: ignore[attr-defined] # missing from its stub

    def _member(self, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
        path = _normal(self.label, info.name)
        kind = _TYPES.get(info.type)
        if kind is None or info.sparse is not None:
            raise PackageError(f"{self.label}: {path} is neither a file, a folder nor a link")
        if info.size < 0 or info.uid < 0 or info.gid < 0:
            raise PackageError(f"{self.label}: {path} states a negative size or owner")
        target = info.linkname
        if kind == "hard link":
            target = _normal(self.label, target)
        elif kind == "symlink" and (not target or "\0" in target):
            raise PackageError(f"{self.label}: the link {path} points nowhere")
        return Member(
            path=path,
            kind=kind,
            mode=info.mode & 0o7777,
            uid=info.uid,
            gid=info.gid,
            size=info.size if kind == "file" else 0,
            target=target,
            content=tar.extractfile(info) if kind == "file" else None,
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


def _control(stream: BinaryIO, section: Section, label: str) -> dict[str, str]:
    plain = _Plain(_decompress(stream, section), _CONTROL_LIMIT)
    found = {}
    with tarfile.open(fileobj=plain, mode="r|", encoding="utf-8", errors="strict") as tar:
        for info in tar:
            name = info.name.removeprefix("./")
            if name in ("control", "md5sums") and info.isreg():
                content = tar.extractfile(info)
                assert content is not None
                found[name] = content.read().decode("utf-8").strip("\n")
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


class _Plain(io.RawIOBase):
    """What tarfile reads from: the decompressed pieces, up to a limit."""

    def __init__(self, pieces: Iterator[bytes], limit: int) -> None:
        self._pieces = pieces
        self._left = limit
        self._buffer = b""

    def read(self, size: int = -1) -> bytes:
        parts = []
        while size != 0:
            if not self._buffer:
                self._buffer = next(self._pieces, b"")
                if not self._buffer:
                    break
                self._left -= len(self._buffer)
                if self._left < 0:
                    raise PackageError("it inflates to far more than a package does")
            part = self._buffer if size < 0 else self._buffer[:size]
            self._buffer = self._buffer[len(part) :]
            size -= len(part) if size > 0 else 0
            parts.append(part)
        return b"".join(parts)


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
    except PackageError as error:
        if error.message.startswith(label):
            raise
        raise PackageError(f"{label}: {error.message}", hint=error.hint) from None
    except (tarfile.TarError, lzma.LZMAError, isal_zlib.error, UnicodeDecodeError) as error:  # type: ignore[misc] # isal's stub declares a value
        raise PackageError(f"{label} is damaged ({error})") from None
