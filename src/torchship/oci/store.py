"""The local store: an OCI image layout on disk, and what was derived on the way to it.

    oci/          the image layout: oci-layout, index.json, blobs/sha256/  (skopeo reads it)
    layers/       the key of each derived layer -> its digest, diff_id and sizes
    origins/      the repositories that have an image, or the parts of it that the store lacks
    unpacked/     layers as folders, for the native engine, by diff_id; nobody else enters it
    downloads/    wheels, packages and data files, by sha256
    stamps/       what stat said of each blob when it was verified
    partial/      blobs whose download ended early, by sha256: the next one goes on with them
    temporary/    files in the making; locks/ one lock file for each layer being derived

Any number of processes share a store. Each holds it (a shared lock) from its first use to its
end, so that `prune`, which takes it alone, never removes what a build has just made. Killing a
process at any instant loses its own unfinished file and nothing else.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from msgspec import Struct
from msgspec.structs import replace

from torchship.digest import Descriptor, Digest
from torchship.errors import (
    BlobDamaged,
    BlobMissing,
    ImageNotFound,
    InvalidReference,
    ManifestError,
    StoreError,
)
from torchship.layers.archive import Archive
from torchship.layers.layer import Layer, Materials, Recipe, key, labels
from torchship.oci import durable, index
from torchship.oci.blobs import Blobs, BlobWriter, ResumedWriter
from torchship.oci.derived import Derived
from torchship.oci.documents import MANIFEST_LIMIT
from torchship.oci.folders import private
from torchship.oci.nearest import nearest
from torchship.oci.origins import Origins
from torchship.oci.reference import Reference
from torchship.progress import SILENT, Progress

ENVIRONMENT = "TORCHSHIP_HOME"
"""The environment variable that names another place for the store."""

_SHORTEST = 7  # digits of a digest that may stand for it


class Named(Struct, frozen=True, kw_only=True, order=True):
    """An image of the store and the name it has there."""

    reference: Reference
    descriptor: Descriptor


class Store:
    """One store. It pickles as its path, so that worker processes can be sent it."""

    def __init__(self, home: Path, progress: Progress = SILENT) -> None:
        self.home = home
        self.oci = home / "oci"
        self.downloads = home / "downloads"
        self.unpacked = home / "unpacked"
        self.temporary = home / "temporary"
        self.partial = home / "partial"
        self.blobs = Blobs(
            self.oci / "blobs" / "sha256",
            stamps=home / "stamps",
            temporary=self.temporary,
            partial=self.partial,
        )
        self.derived = Derived(home / "layers", temporary=self.temporary)
        self.origins = Origins(home / "origins", temporary=self.temporary)
        self._progress = progress
        self._locks = home / "locks"
        self._index = self.oci / "index.json"
        self._held: BinaryIO | None = None
        self._prepared = False

    @classmethod
    def open(cls, home: Path | None = None, *, progress: Progress = SILENT) -> Store:
        """Open the store at ``home``, ``$TORCHSHIP_HOME``, or the user's cache folder.

        Nothing is created before it is needed, so a store that is not there reads as empty.
        ``progress`` is told of each damaged blob that the work goes on without.
        """
        if home is None:
            named = os.environ.get(ENVIRONMENT)
            home = Path(named) if named else _cache()
        return cls(home.expanduser().absolute(), progress)

    def __reduce__(self) -> tuple[object, ...]:
        return (Store, (self.home,))

    # -- blobs

    def put(self, data: bytes, media_type: str) -> Descriptor:
        """Write a small blob; return its descriptor."""
        self._prepare()
        digest = self.blobs.put(data)
        return Descriptor(media_type=media_type, digest=digest, size=len(data))

    def writer(self) -> BlobWriter:
        """Begin a blob that comes in from elsewhere."""
        self._prepare()
        return self.blobs.writer()

    def resume(self, digest: Digest, wait: Callable[[], None]) -> ResumedWriter:
        """Begin a blob that is known by its digest, or go on where a download of it ended.

        Where another process is at it, its end is waited for, calling ``wait`` meanwhile.
        """
        self._prepare()
        return self.blobs.resume(digest, wait)

    def has(self, digest: Digest) -> bool:
        """Tell whether a blob is there, unharmed; a damaged one is reported and removed."""
        self._hold()
        try:
            self.blobs.check(digest)
        except BlobMissing:
            return False
        except BlobDamaged as error:
            self.report(error)
            return False
        return True

    def report(self, error: BlobDamaged) -> None:
        """Tell of a damaged blob, where the work goes on without it."""
        self._progress.say(error.message)

    def open_blob(self, digest: Digest) -> BinaryIO:
        """Open a blob, checked by its stamp; raises `BlobMissing` or `BlobDamaged`."""
        self._hold()
        return self.blobs.open(digest)

    def read(self, descriptor: Descriptor, limit: int = MANIFEST_LIMIT) -> bytes:
        """Return the raw bytes of a manifest, index or config, hashed and of the stated size."""
        self._hold()
        data = self.blobs.read(descriptor.digest, limit)
        if len(data) != descriptor.size:
            raise ManifestError(
                f"{descriptor.digest} has {len(data)} bytes where {descriptor.size} were stated"
            )
        return data

    def read_verified(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield a blob in pieces, every byte hashed; `BlobDamaged` comes after the last."""
        self._hold()
        return self.blobs.read_verified(descriptor)

    # -- derived layers

    def known(self, name: Digest) -> Layer | None:
        """Return what a recipe of that key gave before, if its blob is still there and sound."""
        self._hold()
        layer = self.derived.get(name)
        if layer is None or not self.has(layer.digest):
            return None
        self.derived.touch(name)
        return layer

    def derive(self, recipe: Recipe, materials: Materials) -> Layer:
        """Return the layer that a recipe gives, making it only if the store does not know it.

        Two processes that want the same layer make it once: the second waits for the first.
        """
        name, annotations = key(recipe), MappingProxyType(labels(recipe))
        layer = self.known(name)
        if layer is None:
            self._prepare()
            with self._lock(name.hex):
                layer = self.known(name) or self._make(name, recipe, materials)
        # What a layer is called does not change its bytes: the recipe's present words count.
        return replace(layer, annotations=annotations)

    def _make(self, name: Digest, recipe: Recipe, materials: Materials) -> Layer:
        with self.blobs.temporary() as file:
            archive = Archive(file)
            recipe.write(archive, materials)
            written = archive.close()
            self.blobs.adopt(file, written.digest)
        layer = Layer(
            digest=written.digest,
            diff_id=written.diff_id,
            size=written.size,
            unpacked_size=written.unpacked_size,
            annotations=MappingProxyType(labels(recipe)),
        )
        self.derived.set(name, layer)
        return layer

    # -- names

    def images(self) -> tuple[Named, ...]:
        """Return the images that have a name, sorted by it."""
        named = (
            Named(reference=entry.reference, descriptor=entry.descriptor)
            for entry in self.entries()
            if entry.reference is not None
        )
        return tuple(sorted(named, key=lambda image: str(image.reference)))

    def entries(self) -> index.Index:
        """Return all of ``index.json``, with the entries that have no name."""
        self._hold()
        return index.read(self._index)

    def tag(self, name: str | Reference, descriptor: Descriptor) -> Reference:
        """Give an image a name; an image that had it loses it. Returns the full reference."""
        reference = Reference.parse(name) if isinstance(name, str) else name
        self._prepare()
        self.blobs.check(descriptor.digest)
        with self._lock("index"):
            index.change(
                self._index, self.temporary, lambda old: old.with_name(reference, descriptor)
            )
        return reference

    def attach(self, descriptor: Descriptor) -> None:
        """Keep a manifest that refers to another by its ``subject``, as long as that is kept."""
        self._prepare()
        self.blobs.check(descriptor.digest)
        with self._lock("index"):
            index.change(self._index, self.temporary, lambda old: old.with_referrer(descriptor))

    def remove(self, name: str | Reference) -> Descriptor:
        """Take a name away and return what had it; its blobs stay until `prune`.

        A digest, or its first digits, takes the image's every name, and an image without one.
        """
        self._prepare()
        with self._lock("index"):
            found = self.find(str(name))
            reference = _reference(str(name))
            if reference is not None and index.read(self._index).get(reference) is not None:
                index.change(self._index, self.temporary, lambda old: old.without(reference))
            else:
                digests = frozenset({found.digest})
                index.change(self._index, self.temporary, lambda old: old.dropping(digests))
        return found

    def find(self, text: str) -> Descriptor:
        """Return the image of a name, a digest, or the first digits of one (7 or more).

        Raises `ImageNotFound`; `InvalidReference` for what could not be a name either.
        """
        entries = self.entries()
        reference = _reference(text)
        if reference is not None:
            found = entries.get(reference)
            if found is None and reference.digest is not None:
                digest = reference.digest
                found = next((e.descriptor for e in entries if e.descriptor.digest == digest), None)
            if found is not None:
                return found
        digits = text.removeprefix("sha256:")
        matches = {
            entry.descriptor.digest: entry.descriptor
            for entry in entries
            if len(digits) >= _SHORTEST and entry.descriptor.digest.hex.startswith(digits)
        }
        if len(matches) > 1:
            raise ImageNotFound(
                f"{len(matches)} images have a digest that starts with {text}",
                hint="give more of its digits: `torchship images --json` shows them all",
            )
        if not matches:
            raise self._not_found(text)
        (descriptor,) = matches.values()
        return descriptor

    def _not_found(self, text: str) -> ImageNotFound:
        near = self.nearest(text)
        meant = f"there is {near}; " if near else ""
        return ImageNotFound(
            f"the store holds no image {text}",
            hint=f"{meant}`torchship images` lists what is there; `torchship build` makes one",
        )

    def nearest(self, text: str) -> str:
        """Return the name in the store that is most like a text; empty: none is like it."""
        return nearest(text, (image.reference for image in self.images()))

    # -- holding and locking

    def hold(self) -> None:
        """Hold the store from here on: `prune` waits for the end of it."""
        self._hold()

    def release(self) -> None:
        """Stop holding the store: `prune` may run, until the next use holds it again."""
        if self._held is not None:
            self._held.close()
            self._held = None

    @contextmanager
    def alone(self, wait: float) -> Iterator[None]:
        """Hold the store so that no other process uses it; `StoreError` after ``wait`` seconds."""
        self._prepare()
        assert self._held is not None
        deadline = time.monotonic() + wait
        try:
            while True:
                # Asking gives up the shared lock, whatever the answer: so two that want to be
                # alone do not wait for each other.
                with suppress(BlockingIOError):
                    fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() >= deadline:
                    raise StoreError(
                        f"the store {self.home} is in use by another torchship",
                        hint="try again when its build, push or pull has ended",
                    )
                time.sleep(0.05)
            yield
        finally:
            fcntl.flock(self._held, fcntl.LOCK_SH)

    @contextmanager
    def locked_index(self) -> Iterator[Path]:
        """Hold ``index.json`` for a change; yields its path."""
        self._prepare()
        with self._lock("index"):
            yield self._index

    def _hold(self) -> None:
        if self._held is not None:
            return
        try:
            self._held = (self.home / "lock").open("rb")
        except OSError:  # not there yet, so nothing is; or not ours to read
            return
        fcntl.flock(self._held, fcntl.LOCK_SH)

    def _prepare(self) -> None:
        """Make the folders, hold the store, and clear what dead processes left."""
        if self._prepared and self._held is not None:
            return
        folders = (self.blobs.folder, self.home / "layers", self.home / "stamps")
        for folder in (*folders, self.temporary, self._locks, self.downloads):
            with durable.writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
        with durable.writing(self.unpacked):
            private(self.unpacked)
        with durable.writing(self.home / "lock"):
            (self.home / "lock").touch()
        self._hold()
        durable.sweep(self.temporary)
        layout = self.oci / "oci-layout"
        if not layout.exists() or not self._index.exists():
            with self._lock("index"):
                durable.write(layout, index.LAYOUT, self.temporary)
                if not self._index.exists():
                    index.write(self._index, index.Index(), self.temporary)
        self._prepared = True

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        path = self._locks / f"{name}.lock"
        with durable.writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with durable.writing(path):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _cache() -> Path:
    import platformdirs  # where the user names the store, there is nothing to find out

    return platformdirs.user_cache_path("torchship")


def _reference(text: str) -> Reference | None:
    """Return the name that a text is, or None for a digest; raises `InvalidReference`."""
    try:
        return Reference.parse(text)
    except InvalidReference:
        if text.startswith("sha256:"):
            return None
        raise
