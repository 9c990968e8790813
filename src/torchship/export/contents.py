"""What an image's packages say of themselves, read from its layers as they are streamed.

The layers are the truth, whoever built them: annotations and labels say what somebody meant to
put there. Nothing is unpacked and nothing is kept but a few small files.

Sources: OCI image-spec v1.1, layer.md ("Applying Changesets", "Whiteouts"); Recording installed
projects (packaging.python.org); deb-status in dpkg(1); os-release(5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import BinaryIO

from msgspec import Struct

from torchship.digest import Digest
from torchship.engines.extract import MAX_BYTES, MAX_ENTRIES
from torchship.engines.uncompress import Uncompressed
from torchship.errors import HostileInput, LayerError
from torchship.export.packages import (
    Distribution,
    Package,
    read_distribution,
    read_packages,
    read_release,
)
from torchship.layers.layer import Layer
from torchship.layers.tarstream import BLOCK, DIRECTORY, HARDLINK, REGULAR, Member, members

OpenBlob = Callable[[Digest], BinaryIO]
"""Opens a layer's blob by its digest, as it is compressed."""

_METADATA = ".dist-info/METADATA"
_STATUS = "var/lib/dpkg/status"
_DISTROLESS = "var/lib/dpkg/status.d/"  # a file for each package, in images of distroless
_RELEASES = ("etc/os-release", "usr/lib/os-release")  # os-release(5): the first that is there
_INSTALLED = ("site-packages", "dist-packages")
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"

_HEADERS = 1 << 20
"""Bytes of a METADATA file that are read: its headers come first."""

_LARGEST = 32 << 20
"""Bytes of dpkg's status: a desktop's has six million."""

_MOST = 20_000
"""Files that are kept: no image has as many packages."""


class Installed(Struct, frozen=True, kw_only=True):
    """A Python distribution: where its .dist-info is, and the layer that it came with."""

    distribution: Distribution
    location: str
    layer: Digest


class DataFile(Struct, frozen=True, kw_only=True):
    """A file that the image declares as data. ``digest`` and ``size`` are of what is there."""

    path: str
    digest: Digest
    size: int


class Contents(Struct, frozen=True, kw_only=True):
    """What an image holds, as its uppermost layers show it; each part sorted by its path."""

    distributions: tuple[Installed, ...]
    packages: tuple[Package, ...]
    release: Mapping[str, str]
    data: tuple[DataFile, ...]


_Kept = Distribution | DataFile | bytes


def contents(layers: Collection[Layer], open_blob: OpenBlob, data: Collection[str]) -> Contents:
    """Read the layers, lowest first; ``data`` are absolute paths of files to be hashed.

    Raises `LayerError` for a layer that is damaged, not what its image says, or too large.
    """
    found: dict[str, tuple[_Kept, Digest]] = {}
    wanted = frozenset(path.lstrip("/") for path in data)
    for layer in layers:
        scan = _Scan(wanted, _with_parents(found))
        with open_blob(layer.digest) as blob:
            _read(layer, blob, scan)
        found = {path: kept for path, kept in found.items() if not scan.hides(path)}
        for path, target in scan.links.items():
            if target in scan.kept:
                scan.kept[path] = scan.kept[target]
            elif target in found and isinstance(found[target][0], Distribution):
                scan.kept[path] = found[target][0]
        found.update((path, (kept, layer.digest)) for path, kept in scan.kept.items())
        if len(found) > _MOST:
            raise LayerError(f"the image has more than {_MOST} packages", hint=_DOUBT)
    return _sorted(found)


_DOUBT = "no honest image does: do not trust its publisher"


def _sorted(found: Mapping[str, tuple[_Kept, Digest]]) -> Contents:
    files = {path: kept for path, (kept, _) in sorted(found.items())}
    distributions = [
        Installed(
            distribution=kept, location=f"/{path.removesuffix('/METADATA')}", layer=found[path][1]
        )
        for path, kept in files.items()
        # Anywhere else, in a cache say, it is installed for nobody.
        if isinstance(kept, Distribution) and any(part in path.split("/") for part in _INSTALLED)
    ]
    status = [
        kept
        for path, kept in files.items()
        if isinstance(kept, bytes) and (path == _STATUS or path.startswith(_DISTROLESS))
    ]
    releases = (files[path] for path in _RELEASES if path in files)
    release = next((kept for kept in releases if isinstance(kept, bytes)), b"")
    return Contents(
        distributions=tuple(distributions),
        packages=tuple(package for text in status for package in read_packages(text)),
        release=read_release(release),
        data=tuple(kept for kept in files.values() if isinstance(kept, DataFile)),
    )


def _with_parents(paths: Collection[str]) -> frozenset[str]:
    found: set[str] = set()
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return frozenset(found)


class _Scan:
    """One layer: what it keeps, and what of the layers below it hides."""

    def __init__(self, data: frozenset[str], below: frozenset[str]) -> None:
        self.kept: dict[str, _Kept] = {}
        self.links: dict[str, str] = {}
        self._data = data
        self._below = below
        self._gone: set[str] = set()
        self._opaque: set[str] = set()
        self._entries = 0
        self._bytes = 0

    def add(self, member: Member, source: Uncompressed) -> None:
        """Take one entry, and read its content to the end, padding and all."""
        self._count(member)
        path = _normal(member.path)
        folder, _, name = path.rpartition("/")
        left = member.size
        if name == _OPAQUE:
            self._opaque.add(folder)
        elif name.startswith(_WHITEOUT):
            self._gone.add(f"{folder}/{name[len(_WHITEOUT) :]}".lstrip("/"))
        elif member.kind != DIRECTORY:
            if path in self._below:
                self._gone.add(path)
            self.kept.pop(path, None)  # of two entries of one name, the last one stays
            self.links.pop(path, None)
            if member.kind == REGULAR:
                left = self._keep(path, member, source)
            elif member.kind == HARDLINK and path.endswith(_METADATA):
                self.links[path] = _normal(member.link)
        source.skip(left + -member.size % BLOCK)

    def hides(self, path: str) -> bool:
        """Tell whether a path of the layers below is no longer there."""
        while path:
            folder = path.rpartition("/")[0]
            if path in self._gone or folder in self._opaque:
                return True
            path = folder
        return False

    def _keep(self, path: str, member: Member, source: Uncompressed) -> int:
        """Keep what is wanted of a file; return how many of its bytes are still to be read."""
        if path in self._data:
            running = hashlib.sha256()
            for piece in source.pieces(member.size):
                running.update(piece)
            self.kept[path] = DataFile(
                path=f"/{path}", digest=Digest(running.hexdigest()), size=member.size
            )
            return 0
        if path.endswith(_METADATA):
            read = min(member.size, _HEADERS)
            distribution = read_distribution(source.read(read))
            if distribution is not None:
                self.kept[path] = distribution
            return member.size - read
        if path in (_STATUS, *_RELEASES) or path.startswith(_DISTROLESS):
            if member.size > (_LARGEST if path == _STATUS else _HEADERS):
                raise LayerError(f"/{path} has {member.size} bytes", hint=_DOUBT)
            self.kept[path] = source.read(member.size)
            return 0
        return member.size

    def _count(self, member: Member) -> None:
        self._entries += 1
        self._bytes += member.size
        if self._entries > MAX_ENTRIES or self._bytes > MAX_BYTES or len(self.kept) > _MOST:
            raise LayerError("it holds more than any layer that an experiment needs", hint=_DOUBT)


def _normal(path: bytes) -> str:
    parts = [part for part in path.decode("utf-8", "replace").split("/") if part not in ("", ".")]
    if ".." in parts:
        raise LayerError(f"the path {'/'.join(parts)!r} leads upwards", hint=_DOUBT)
    return "/".join(parts)


def _read(layer: Layer, blob: BinaryIO, scan: _Scan) -> None:
    with Uncompressed(blob) as source:
        try:
            for member in members(source):
                scan.add(member, source)
        except HostileInput as error:
            raise LayerError(
                f"layer {layer.digest.short}: {error.message}", hint=error.hint
            ) from None
        found = source.digest()
    if found != layer.diff_id:
        raise LayerError(
            f"layer {layer.digest.short} unpacks to {found.short}, "
            f"and its image says {layer.diff_id.short}",
            hint="pull or build the image again; if it stays so, do not trust its publisher",
        )
