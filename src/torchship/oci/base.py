"""A published image as the base of another: which one, with which Python, and its layers.

Its layers are taken as they are, by digest; nothing of them is compressed again.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
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
from torchship.oci.registry import Registry
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


def resolve_image(
    text: str,
    platform: Platform,
    *,
    store: Store,
    progress: Progress,
    registry: Registry | None = None,
) -> BaseImage:
    """Ask what a reference is now: the digest of the platform's manifest, and its Python.

    The version comes from ``PYTHON_VERSION``, as Docker's ``python`` images state it. Where
    that is missing the layers are fetched and looked through; an image that tells only
    ``3.11`` there gives that. Raises `RegistryError`, or `ProjectError` where no Python is in
    ``/usr/local/bin`` or ``/usr/bin``.
    """
    reference = Reference.parse(text)
    source = registry or Registry(reference.registry)
    _, top = source.manifest(reference)
    image = read_image(source.source(reference.repository), top, platform)
    stated = image.environment.get("PYTHON_VERSION", "")
    if not _VERSION.fullmatch(stated):
        progress.say(f"{text} does not state its Python: looking into its layers")
        descriptors = [layer.descriptor for layer in image.layers]
        fetch_blobs(descriptors, reference, store, registry=source, progress=progress)
        stated = python_version(store, image.layers, text)
    return BaseImage(digest=image.descriptor.digest, python=stated)


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


class _Finds(Struct):
    """What the layers say of Python, by prefix; what an upper layer says stands."""

    chosen: dict[str, str] = field(default_factory=dict)
    minors: dict[str, set[str]] = field(default_factory=lambda: {"usr/local": set(), "usr": set()})
    exact: dict[tuple[str, str], str] = field(default_factory=dict)

    def version(self) -> str | None:
        """Return what ``python3`` is on the usual PATH."""
        for prefix, minors in self.minors.items():
            if not minors:
                continue
            newest = max(minors, key=lambda minor: int(minor.partition(".")[2]))
            minor = self.chosen.get(prefix, newest)
            return self.exact.get((prefix, minor), minor)
        return None


def python_version(store: Store, layers: Sequence[Layer], name: str) -> str:
    """Find the version of an image's Python in its layers, which are in the store."""
    finds = _Finds()
    for layer in reversed(layers):
        with store.open_blob(layer.digest) as blob, _opened(blob, layer) as archive:
            for member in archive:
                _look(archive, member, finds)
    found = finds.version()
    if found is None:
        raise ProjectError(
            f"{name} has no Python in /usr/local/bin or /usr/bin",
            hint="take a base that has one, such as python:3.11-slim",
        )
    return found


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


def _look(archive: tarfile.TarFile, member: tarfile.TarInfo, finds: _Finds) -> None:
    path = member.name.removeprefix("./").lstrip("/")
    if program := _PROGRAM.fullmatch(path):
        prefix, version = program.groups()
        target = re.fullmatch(r"(?:.*/)?python(3\.\d+)", member.linkname)
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
