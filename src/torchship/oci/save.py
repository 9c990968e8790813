"""An image as one file: at once an OCI archive and an archive that ``docker load`` takes.

Sources: OCI image-spec v1.1, image-layout.md; Docker image specification v1.2, "Combined Image
JSON + Filesystem Changeset Format" (``manifest.json``), whose paths may lead anywhere in the
archive: here, to the layout's own blobs. So every blob is in the file once.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from msgspec.structs import replace

from torchship import canonical
from torchship.digest import Descriptor, Digest
from torchship.errors import StoreError
from torchship.layers.archive import Entry, Kind, PlainTar, Sink
from torchship.oci import mediatypes
from torchship.oci.image import Image, children, held, read_one
from torchship.oci.index import LAYOUT, REF_NAME
from torchship.oci.reference import Reference
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT, Progress, Task

CONTAINERD_NAME = "io.containerd.image.name"
"""Annotation that containerd, Docker's containerd store and Podman take an image's name from."""


def save(
    store: Store,
    descriptor: Descriptor,
    out: Path | BinaryIO,
    *,
    names: Collection[Reference] = (),
    platform: Platform | None = None,
    omit: Collection[Digest] = (),
    attached: Sequence[Descriptor] = (),
    progress: Progress = SILENT,
) -> None:
    """Write an image, or an index with the platforms that the store has, as one deterministic tar.

    ``platform`` is the one that old Dockers load (default: this machine's, else the first);
    ``omit`` names layers whose files are left out, for an engine that has them; ``attached`` are
    manifests about the image that go with it. Raises `BlobDamaged`; a path is then not written
    at all.
    """
    if isinstance(out, Path):
        with _replacing(out) as stream:
            _write(store, descriptor, stream, names, platform, omit, attached, progress)
    else:
        _write(store, descriptor, out, names, platform, omit, attached, progress)


def _write(
    store: Store,
    descriptor: Descriptor,
    out: Sink,
    names: Collection[Reference],
    platform: Platform | None,
    omit: Collection[Digest],
    attached: Sequence[Descriptor],
    progress: Progress,
) -> None:
    blobs = _reachable(store, (descriptor, *attached))
    for digest in omit:
        blobs.pop(digest, None)
    task = progress.task("writing the archive", sum(blob.size for blob in blobs.values()))
    archive = PlainTar(out)
    image = _choose(store, descriptor, platform)
    _add(archive, "oci-layout", LAYOUT)
    _add(archive, "index.json", canonical.encode(_index(descriptor, names, attached)))
    _add(archive, "manifest.json", canonical.encode([_docker(image, names)]))
    # skopeo gives folders that no entry makes to root, which an ordinary user may not do.
    for folder in ("blobs", "blobs/sha256"):
        archive.add(Entry(path=folder, kind=Kind.DIRECTORY, mode=0o755))
    for digest in sorted(blobs):
        pieces = _counted(store.read_verified(blobs[digest]), task)
        archive.add(Entry(path=_path(digest), size=blobs[digest].size), pieces)
    archive.close()
    task.finish()


def _reachable(store: Store, descriptors: Sequence[Descriptor]) -> dict[Digest, Descriptor]:
    """Return every blob of these manifests, each once; of an index, those of the images held."""
    found: dict[Digest, Descriptor] = {}
    waiting = list(descriptors)
    while waiting:
        current = waiting.pop()
        if current.digest not in found:
            found[current.digest] = current
            below = children(store, current)
            if current.media_type in mediatypes.INDEXES:
                below = (child for child in below if store.has(child.digest))
            waiting.extend(below)
    return found


def _choose(store: Store, descriptor: Descriptor, platform: Platform | None) -> Image:
    images = [read_one(store, manifest) for manifest in held(store, descriptor)]
    if not images:
        raise StoreError(
            f"the store holds none of the images of the index {descriptor.digest}",
            hint="pull one of its platforms, or all: torchship pull --all-platforms REFERENCE",
        )
    wanted = platform or Platform.host()
    matching = [image for image in images if image.platform == wanted]
    if platform is not None and not matching:
        raise StoreError(f"{descriptor.digest} holds no image for {platform}")
    return (matching or images)[0]


def _index(
    descriptor: Descriptor, names: Collection[Reference], attached: Sequence[Descriptor]
) -> dict[str, object]:
    plain = {
        k: v for k, v in descriptor.annotations.items() if k not in (REF_NAME, CONTAINERD_NAME)
    }
    entries = [
        replace(descriptor, annotations={**plain, REF_NAME: str(name), CONTAINERD_NAME: str(name)})
        for name in sorted(set(names))
    ]
    entries = entries or [replace(descriptor, annotations=plain)]
    # A stranger's annotations, which are in the manifests: many would make this too large to read
    entries += [replace(each, annotations={}) for each in attached]
    return {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": [each.as_json() for each in entries],
    }


def _docker(image: Image, names: Collection[Reference]) -> dict[str, object]:
    return {
        "Config": _path(image.config.digest),
        "RepoTags": [str(name) for name in sorted(set(names)) if name.tag and not name.digest],
        "Layers": [_path(layer.digest) for layer in image.layers],
    }


def _path(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def _add(archive: PlainTar, path: str, data: bytes) -> None:
    archive.add(Entry(path=path, size=len(data)), [data])


def _counted(pieces: Iterator[bytes], task: Task) -> Iterator[bytes]:
    for piece in pieces:
        task.advance(len(piece))
        yield piece


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name when it is whole, and leaves nothing when it is not."""
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with aside.open("xb") as stream:
            yield stream
        aside.rename(target)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StoreError(
            f"{target} cannot be written: {(error.strerror or str(error)).lower()}",
            hint="free some space there, or name another file"
            if full
            else "name a file in a folder that is there and that you may write to",
        ) from error
    finally:
        aside.unlink(missing_ok=True)
