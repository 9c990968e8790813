"""Reading image archives that others made: OCI archives and layouts, and ``docker save``'s.

One pass, so that a pipe or a compressed archive does as well. Every file becomes a blob under
its own digest before anything is believed that the archive says of it; what turns out to
belong to no image is left to `prune`. Nothing is ever unpacked to a path the archive names.

Sources: OCI image-spec v1.1, image-layout.md; Docker image specification v1.0 to v1.2
(``manifest.json``).
"""

from __future__ import annotations

import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from torchship import canonical
from torchship.digest import Descriptor, Digest, chunks
from torchship.errors import BlobMissing, InvalidDigest, InvalidReference, ManifestError, StoreError
from torchship.oci import mediatypes
from torchship.oci.artifact import subject_of
from torchship.oci.documents import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    ConfigObject,
    DescriptorObject,
    decode,
)
from torchship.oci.image import children, read_one
from torchship.oci.index import REF_NAME
from torchship.oci.member import Member
from torchship.oci.reference import Reference
from torchship.oci.save import CONTAINERD_NAME
from torchship.oci.store import Store

_MOST_MEMBERS = 100_000
_LINKS = 8  # links that may lead from one to the next
_DOCUMENTS = frozenset({"index.json", "manifest.json", "oci-layout"})
_MAGIC = ((b"\x1f\x8b", mediatypes.OCI_GZIP), (b"\x28\xb5\x2f\xfd", mediatypes.OCI_ZSTD))


class _Index(msgspec.Struct, frozen=True):
    manifests: list[DescriptorObject]


class _DockerImage(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class Loaded(Struct, frozen=True, kw_only=True):
    """An image that came in, with the names that it got in the store.

    ``subject`` is what it refers to, where it is no image, but a record or a signature of one.
    """

    descriptor: Descriptor
    names: tuple[Reference, ...] = ()
    subject: Digest | None = None


class _Contents(Struct, kw_only=True):
    """What an archive held: its small documents, and the blob that each file became."""

    documents: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, tuple[Digest, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


def load(store: Store, path: Path) -> tuple[Loaded, ...]:
    """Take in every image of an archive (plain or compressed tar) or an OCI layout folder.

    Raises `ManifestError` for one that is damaged, lacks a blob, or is no image archive.
    """
    try:
        contents = _read_layout(store, path) if path.is_dir() else _read_tar(store, path)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    if "oci-layout" in contents.documents and "index.json" in contents.documents:
        return _load_oci(store, contents, path)
    if "manifest.json" in contents.documents:
        return _load_docker(store, contents, path)
    raise ManifestError(
        f"{path} is no image archive: it has neither oci-layout nor manifest.json",
        hint="make one with `torchship save`, `docker save` or `skopeo copy`",
    )


def _load_oci(store: Store, contents: _Contents, path: Path) -> tuple[Loaded, ...]:
    index = decode(contents.documents["index.json"], _Index, f"{path}: index.json")
    found: dict[Digest, Loaded] = {}
    for place, entry in enumerate(index.manifests):
        where = f"{path}: index.json: manifests[{place}]"
        described = entry.checked(where)
        if described.media_type not in mediatypes.MANIFESTS | mediatypes.INDEXES:
            raise ManifestError(f"{where} is {described.media_type}, which is no image")
        _check_complete(store, described, where)
        name = _name(described.annotations)
        known = found.get(described.digest)
        names = (*(known.names if known else ()), *((name,) if name else ()))
        found[described.digest] = Loaded(
            descriptor=_unnamed(described), names=names, subject=subject_of(store, described)
        )
    return tuple(_keep(store, loaded) for loaded in found.values())


def _load_docker(store: Store, contents: _Contents, path: Path) -> tuple[Loaded, ...]:
    where = f"{path}: manifest.json"
    images = decode(contents.documents["manifest.json"], list[_DockerImage], where)
    return tuple(_keep(store, _from_docker(store, contents, image, where)) for image in images)


def _from_docker(store: Store, contents: _Contents, image: _DockerImage, where: str) -> Loaded:
    """Write the manifest that Docker's archive has none of, over its own config and layers."""
    digest, size = _resolve(contents, image.config, where)
    config = Descriptor(media_type=mediatypes.OCI_CONFIG, digest=digest, size=size)
    document = decode(store.read(config, CONFIG_LIMIT), ConfigObject, f"{where}: {image.config}")
    layers = []
    for name in image.layers:
        digest, size = _resolve(contents, name, where)
        layers.append(Descriptor(media_type=_kind(store, digest), digest=digest, size=size))
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": config.as_json(),
        "layers": [layer.as_json() for layer in layers],
    }
    written = store.put(canonical.encode(manifest), mediatypes.OCI_MANIFEST)
    read = read_one(store, written)  # the layers are as many as its config says
    for layer in read.layers:
        if layer.media_type == mediatypes.OCI_TAR and layer.digest != layer.diff_id:
            raise ManifestError(f"{where}: layer {layer.digest} is not the {layer.diff_id} named")
    names = tuple(_parse(tag, where) for tag in image.repo_tags or ())
    platform = {"architecture": document.architecture, "os": document.os}
    return Loaded(descriptor=replace(written, platform=platform), names=names)


def _keep(store: Store, loaded: Loaded) -> Loaded:
    for name in loaded.names:
        store.tag(name, loaded.descriptor)
    if not loaded.names:
        store.attach(loaded.descriptor)
    return loaded


def _check_complete(store: Store, descriptor: Descriptor, where: str) -> None:
    """Raise `ManifestError` unless all of it came. An index may lack whole platforms.

    Docker saves a multi-platform image with the manifests of one platform only.
    """
    waiting, seen = [descriptor], {descriptor.digest}
    try:
        while waiting:
            current = waiting.pop()
            for child in children(store, current):
                if current.media_type not in mediatypes.INDEXES:
                    store.blobs.check(child.digest)
                elif child.digest in store.blobs and child.digest not in seen:
                    seen.add(child.digest)
                    waiting.append(child)
    except BlobMissing:
        raise ManifestError(f"{where} lacks a part of {descriptor.digest}") from None


def _name(annotations: Mapping[str, str]) -> Reference | None:
    for key in (CONTAINERD_NAME, REF_NAME):
        if text := annotations.get(key):
            try:
                return Reference.parse(text)
            except InvalidReference:  # a name for people, which the layout allows too
                continue
    return None


def _parse(text: str, where: str) -> Reference:
    try:
        return Reference.parse(text)
    except InvalidReference as error:
        raise ManifestError(f"{where}: {error.message}") from None


def _unnamed(descriptor: Descriptor) -> Descriptor:
    annotations = {
        k: v for k, v in descriptor.annotations.items() if k not in (CONTAINERD_NAME, REF_NAME)
    }
    return replace(descriptor, annotations=annotations)


def _resolve(contents: _Contents, name: str, where: str) -> tuple[Digest, int]:
    """Return the blob that a path of the archive became, through links inside the archive."""
    path = posixpath.normpath(name)
    for _ in range(_LINKS):
        if path in contents.files:
            return contents.files[path]
        if path not in contents.links:
            break
        path = contents.links[path]
    raise ManifestError(f"{where} names {name}, which the archive does not hold")


def _kind(store: Store, digest: Digest) -> str:
    with store.open_blob(digest) as stream:
        start = stream.read(4)
    return next((kind for magic, kind in _MAGIC if start.startswith(magic)), mediatypes.OCI_TAR)


def _read_layout(store: Store, folder: Path) -> _Contents:
    contents = _Contents()
    for name in _DOCUMENTS:
        if (folder / name).is_file():
            with (folder / name).open("rb") as stream:
                contents.documents[name] = _small(stream, f"{folder}/{name}")
    blobs = folder / "blobs" / "sha256"
    for path in sorted(blobs.iterdir()) if blobs.is_dir() else ():
        with path.open("rb") as stream:
            _take(store, contents, f"blobs/sha256/{path.name}", stream)
    return contents


def _read_tar(store: Store, path: Path) -> _Contents:
    contents = _Contents()
    try:
        with tarfile.open(path, "r|*", tarinfo=Member) as archive:
            for count, member in enumerate(archive):
                if count == _MOST_MEMBERS:
                    raise ManifestError(f"{path} holds more than {_MOST_MEMBERS} files")
                _member(store, contents, archive, member)
                # A stream is read once: what was seen of it need not be remembered.
                archive.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise ManifestError(
            f"{path} is no tar archive, or is damaged: {error}",
            hint="make one with `torchship save`, `docker save` or `skopeo copy`",
        ) from None
    except RecursionError:  # tarfile calls itself for each header that extends the next
        raise ManifestError(f"{path} has too many extended headers in a row") from None
    return contents


def _member(
    store: Store, contents: _Contents, archive: tarfile.TarFile, member: tarfile.TarInfo
) -> None:
    name = posixpath.normpath(member.name)
    if member.issym():
        folder = posixpath.dirname(name)
        contents.links[name] = posixpath.normpath(posixpath.join(folder, member.linkname))
    elif member.islnk():
        contents.links[name] = posixpath.normpath(member.linkname)
    elif member.issparse():  # as a pax header may say, too
        raise ManifestError(f"{name} is a sparse file, which no image tool writes")
    elif member.isreg():
        stream = archive.extractfile(member)
        assert stream is not None
        if name in _DOCUMENTS:
            contents.documents[name] = _small(stream, name)
        else:
            _take(store, contents, name, stream)


def _small(stream: IO[bytes], where: str) -> bytes:
    data = stream.read(MANIFEST_LIMIT + 1)
    if len(data) > MANIFEST_LIMIT:
        raise ManifestError(f"{where} is larger than {MANIFEST_LIMIT} bytes")
    return data


def _take(store: Store, contents: _Contents, name: str, stream: IO[bytes]) -> None:
    # image-layout.md, Blobs: "The content of blobs/<alg>/<encoded> MUST match the digest"
    folder, _, encoded = name.rpartition("/")
    expected = None
    if folder == "blobs/sha256":
        try:
            expected = Digest(encoded)
        except InvalidDigest as error:
            raise ManifestError(f"{name}: {error.message}") from None
    with store.writer() as blob:
        for piece in chunks(stream):  # type: ignore[arg-type] # tarfile's own kind of stream
            blob.write(piece)
        digest = blob.commit(expected)
    contents.files[name] = (digest, blob.size)
