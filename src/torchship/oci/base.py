"""A published image as the base of another: which one, with which Python, and its layers.

Its layers are taken as they are, by digest; nothing of them is compressed again.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, BinaryIO

import msgspec
from msgspec import Struct, field

from torchship.digest import Descriptor, Digest
from torchship.errors import BlobMissing, LayerError, ProjectError
from torchship.layers.layer import Layer
from torchship.oci.documents import MANIFEST_LIMIT, decode
from torchship.oci.image import Image, read_image
from torchship.oci.mediatypes import COMPRESSION, OCI_MANIFEST
from torchship.oci.member import Member
from torchship.oci.pull import fetch_blobs
from torchship.oci.reference import Reference
from torchship.oci.registry.client import Registry
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import Progress
from torchship.project.resolve import BaseImage

_VERSION = re.compile(r"3\.\d+\.\d+\w*")
_PROGRAM = re.compile(r"(usr/local|usr)/bin/python(3(?:\.\d+)?)")
_PATCHLEVEL = re.compile(r"(usr/local|usr)/include/python(3\.\d+)/patchlevel\.h")
_PY_VERSION = re.compile(rb'#define\s+PY_VERSION\s+"(3\.\d+\.\d+\w*)"')
_DPKG = "var/lib/dpkg/status"
_DPKG_PYTHON = re.compile(
    rb"^Package: python(3\.\d+)-minimal\n(?:.+\n)*?Version: (?:\d+:)?(3\.\d+\.\d+)", re.MULTILINE
)
_ACCOUNTS = ("etc/passwd", "etc/group")
_ACCOUNTS_SIZE = 1 << 20
_LARGEST = 64 << 20
"""Bytes of a file that is looked into: dpkg's status is the largest, some megabytes."""

FetchLayer = Callable[[Layer], object]
"""Brings a layer into the store, where it is not there."""


def resolve_image(
    text: str,
    platform: Platform,
    *,
    store: Store,
    progress: Progress,
    registry: Registry | None = None,
) -> BaseImage:
    """Ask what a reference is now: the digest of the platform's manifest, and its Python.

    The layers that tell of its Python are fetched into the store. Raises `RegistryError`, and
    what `find_python` raises.
    """
    reference = Reference.parse(text)
    source = registry or Registry(reference.registry)
    _, top = source.manifest(reference)
    image = read_image(source.source(reference.repository), top, platform)
    progress.say(f"looking for the Python of {text} in its layers")

    def fetch(layer: Layer) -> None:
        fetch_blobs([layer.descriptor], reference, store, registry=source, progress=progress)

    found = find_python(image, text, store=store, fetch=fetch)
    return BaseImage(digest=image.descriptor.digest, python=found.version, interpreter=found.path)


def base_image(
    text: str,
    digest: Digest,
    platform: Platform,
    *,
    store: Store,
    registry: Registry | None = None,
) -> Image:
    """Return a locked base, without its layers: those are `fetch_base`'s.

    Its layers are `Layer` values by digest, its environment and user are there to build on.
    Once its documents are in the store, no registry is asked.
    """
    kept = _kept(digest, platform, store)
    if kept is not None:
        return kept
    reference = Reference.parse(text).with_digest(digest)
    source = registry or Registry(reference.registry)
    raw, descriptor = source.manifest(reference)
    image = read_image(source.source(reference.repository), descriptor, platform)
    store.put(raw, descriptor.media_type)
    store.put(image.raw_config, image.config.media_type)
    return image


def fetch_base(
    text: str,
    layers: Sequence[Layer],
    *,
    store: Store,
    progress: Progress,
    registry: Registry | None = None,
) -> None:
    """Bring layers of a base into the store; what is there already is not fetched."""
    lacking = [layer.descriptor for layer in layers if not store.has(layer.digest)]
    if lacking:
        reference = Reference.parse(text)
        source = registry or Registry(reference.registry)
        fetch_blobs(lacking, reference, store, registry=source, progress=progress)


def _kept(digest: Digest, platform: Platform, store: Store) -> Image | None:
    """Return a base whose documents the store has, so that an edit needs no registry."""
    if not store.has(digest):
        return None
    with store.open_blob(digest) as blob:
        raw = blob.read(MANIFEST_LIMIT)
    stated = decode(raw, _Stated, str(digest)).media_type or OCI_MANIFEST
    descriptor = Descriptor(media_type=stated, digest=digest, size=len(raw))
    try:
        return read_image(store, descriptor, platform)
    except BlobMissing:
        return None


class _Stated(msgspec.Struct, frozen=True, rename="camel"):
    """What a manifest says it is."""

    media_type: str | None = None


class Python(Struct, frozen=True, kw_only=True):
    """An image's Python: its absolute path there, and its full version."""

    path: str
    version: str


class _Finds(Struct):
    """What the layers say of Python, by prefix; what an upper layer says stands."""

    stated: str
    chosen: dict[str, str] = field(default_factory=dict)
    minors: dict[str, set[str]] = field(default_factory=lambda: {"usr/local": set(), "usr": set()})
    exact: dict[tuple[str, str], str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)

    def prefix(self) -> str | None:
        """Return where the usual PATH finds ``python3``."""
        return next((prefix for prefix, minors in self.minors.items() if minors), None)

    def minor(self, prefix: str) -> str:
        """Return which one ``python3`` is there: what it links to, and else the newest."""
        minors = self.minors[prefix]
        chosen = self.chosen.get(prefix)
        return chosen if chosen in minors else max(minors, key=lambda one: int(one[2:]))

    def version(self, prefix: str) -> str | None:
        """Return the full version of that one, if anything tells it."""
        minor = self.minor(prefix)
        fits = _VERSION.fullmatch(self.stated) and self.stated.startswith(f"{minor}.")
        return self.exact.get((prefix, minor), self.stated if fits else None)

    def settled(self) -> bool:
        """Tell whether no lower layer can change the answer."""
        first = next(iter(self.minors))
        known = self.chosen.get(first) in self.minors[first]
        return known and self.version(first) is not None

    def is_removed(self, path: str) -> bool:
        """Tell whether a layer above has taken a path away."""
        return any(path == gone or path.startswith(f"{gone}/") for gone in self.removed)


def find_python(image: Image, name: str, *, store: Store, fetch: FetchLayer) -> Python:
    """Find an image's Python where it is: in its layers, the topmost first.

    Layers below the one that settles it are not fetched: of Docker's own ``python`` images,
    that is the one with Python. ``PYTHON_VERSION`` is taken for the version of the Python that
    was found only where no file tells it. Raises `ProjectError` where no Python is in
    ``/usr/local/bin`` or ``/usr/bin``, or nothing tells its full version.
    """
    finds = _Finds(stated=image.environment.get("PYTHON_VERSION", ""))
    for layer in reversed(image.layers):
        fetch(layer)
        removed: set[str] = set()
        with store.open_blob(layer.digest) as blob, _opened(blob, layer) as archive:
            for member in archive:
                path = member.name.removeprefix("./").lstrip("/")
                if (gone := _removed(path)) is not None:
                    removed.add(gone)
                else:
                    _look(archive, member, path, finds)
        if finds.settled():
            break
        finds.removed |= removed
    prefix = finds.prefix()
    if prefix is None:
        raise ProjectError(
            f"{name} has no Python in /usr/local/bin or /usr/bin",
            hint="take a base that has one, such as python:3.11-slim",
        )
    found = f"/{prefix}/bin/python{finds.minor(prefix)}"
    version = finds.version(prefix)
    if version is None:
        raise ProjectError(
            f"{name} has {found}, and nothing in it tells that Python's full version",
            hint="set ENV PYTHON_VERSION to it in the base, or take one such as python:3.11-slim",
        )
    return Python(path=found, version=version)


def _removed(path: str) -> str | None:
    """Return what a whiteout takes away of the layers below (image-spec, layer.md)."""
    folder, _, name = path.rpartition("/")
    if name == ".wh..wh..opq":
        return folder
    return f"{folder}/{name[4:]}".lstrip("/") if name.startswith(".wh.") else None


def users(store: Store, layers: Sequence[Layer]) -> tuple[bytes | None, bytes | None]:
    """Return an image's ``/etc/passwd`` and ``/etc/group`` from its layers, in the store.

    Where there is none, an empty one; None for what is no file, such as a link.
    """
    found: dict[str, bytes | None] = {}
    for layer in reversed(layers):
        here: dict[str, bytes | None] = {}
        hidden: set[str] = set()
        with store.open_blob(layer.digest) as blob, _opened(blob, layer) as archive:
            for member in archive:
                path = member.name.removeprefix("./").lstrip("/")
                if path in _ACCOUNTS:
                    small = member.isfile() and member.size <= _ACCOUNTS_SIZE
                    here[path] = _content(archive, member) if small else None
                hidden |= {one for one in _ACCOUNTS if path == _whiteout(one)}
        found = here | dict.fromkeys(hidden - here.keys(), b"") | found
        if found.keys() >= set(_ACCOUNTS):
            break
    passwd, group = (found.get(path, b"") for path in _ACCOUNTS)
    return passwd, group


def _whiteout(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.wh.{name}"  # image-spec, layer.md, "Whiteouts"


def _look(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, finds: _Finds) -> None:
    if program := _PROGRAM.fullmatch(path):
        prefix, version = program.groups()
        target = re.fullmatch(r"(?:.*/)?python(3\.\d+)", member.linkname)
        if finds.is_removed(path):
            return
        if version == "3" and target:
            finds.chosen.setdefault(prefix, target[1])
        elif version != "3":
            finds.minors[prefix].add(version)
    elif header := _PATCHLEVEL.fullmatch(path):
        prefix, minor = header.groups()
        if exact := _PY_VERSION.search(_content(archive, member)):
            finds.exact.setdefault((prefix, minor), exact[1].decode("ascii"))
    elif path == _DPKG:
        for minor_, exact_ in _DPKG_PYTHON.findall(_content(archive, member)):
            finds.exact.setdefault(("usr", minor_.decode("ascii")), exact_.decode("ascii"))


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member) if member.isfile() and member.size <= _LARGEST else None
    return file.read() if file is not None else b""


@contextmanager
def _opened(blob: BinaryIO, layer: Layer) -> Iterator[tarfile.TarFile]:
    """Read a layer as a stream of tar members; raise `LayerError` where it is none."""
    import zstandard
    from isal import isal_zlib

    try:
        with tarfile.open(
            fileobj=_inflated(blob, layer.media_type), mode="r|", tarinfo=Member
        ) as archive:
            yield archive
    except (tarfile.TarError, EOFError, OSError, zstandard.ZstdError) as fault:
        raise _unreadable(layer, fault) from fault
    except RecursionError as fault:  # tarfile calls itself for each header that extends the next
        raise _unreadable(layer, fault) from None
    except isal_zlib.error as fault:  # type: ignore[misc] # its stub
        raise _unreadable(layer, fault) from fault


def _unreadable(layer: Layer, fault: Exception) -> LayerError:
    return LayerError(
        f"the layer {layer.digest} of the base cannot be read: {fault}",
        hint="pull the base again, or take another one",
    )


def _inflated(blob: BinaryIO, media_type: str) -> IO[bytes]:
    compression = COMPRESSION[media_type]
    if compression == "gzip":
        from isal import igzip

        stream: IO[bytes] = igzip.open(blob, "rb")  # type: ignore[no-untyped-call]
        return stream
    if compression == "zstd":
        import zstandard

        decoder = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        return decoder.stream_reader(blob, read_across_frames=True)
    return blob
