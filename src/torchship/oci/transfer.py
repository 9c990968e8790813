"""Copies an image from an `Origin` into a repository: only the blobs that it lacks.

Each tag comes after everything it needs. The origin is the store (`push`) or another repository
(`copy`). What refers to the image (records, signatures) goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from enum import Enum
from functools import partial
from typing import Protocol

from msgspec import Struct

from torchship.digest import Descriptor, Digest
from torchship.errors import BlobMissing, HostileInput, ManifestError, RegistryError
from torchship.oci import artifact, referrers
from torchship.oci.documents import MANIFEST_LIMIT
from torchship.oci.manifest import Manifest, parse
from torchship.oci.parallel import each
from torchship.oci.pull import label
from torchship.oci.reference import Reference
from torchship.oci.registry.client import ABSENT, Registry
from torchship.progress import Progress

_DEPTH = 3
_LACKING = frozenset({400, 404})  # MANIFEST_BLOB_UNKNOWN, by registry
_PLATFORMS = 16  # of an index, that are looked at for what they have
_MOST = 1000  # manifests of one image, and referrers of it
_SMALL = 16 << 10
"""Bytes: a blob this small that the tagged image lacks is uploaded without a HEAD first; asking
would cost more than sending."""
_LARGEST = 64 << 20  # bytes of all of them together


class Origin(Protocol):
    """Where an image comes from."""

    def read(self, descriptor: Descriptor, limit: int) -> bytes:
        """Return a manifest or index: of the stated digest and size, at most ``limit`` bytes."""

    def has(self, digest: Digest) -> bool:
        """Tell whether a manifest that an index names is there."""

    def pieces(self, blob: Descriptor, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes from an offset on; its end comes only where its digest is right."""

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """Return the descriptors of what refers to a manifest."""


class Sent(Struct, frozen=True, kw_only=True):
    """What a transfer did, in bytes of blobs: sent, mounted from a neighbour, there already.

    ``referrers`` counts the manifests about the image that went with it.
    """

    descriptor: Descriptor
    sent: int
    mounted: int
    skipped: int
    referrers: int


class _Way(Enum):
    SENT = "sent"
    MOUNTED = "mounted"
    SKIPPED = "skipped"


class _Held(Struct, frozen=True, kw_only=True):
    """A manifest or index of the origin, with its raw bytes."""

    descriptor: Descriptor
    raw: bytes
    blobs: tuple[Descriptor, ...]


class Transfer(Struct, kw_only=True):
    """One image on its way to ``reference``.

    ``neighbours`` gives the repositories of the same registry that a blob may be mounted from.
    """

    origin: Origin
    registry: Registry
    reference: Reference
    neighbours: Callable[[Digest], Sequence[str]]
    progress: Progress
    verb: str

    def run(self, top: Descriptor) -> Sent:
        """Send an image, or an index with all its images. The name changes last."""
        manifests = tuple(_bounded(self._manifests(top)))
        presumed = _blobs_now(self.registry, self.reference)
        try:
            return self._run(manifests, presumed)
        except RegistryError as fault:
            if not presumed or fault.status not in _LACKING:
                raise
        # What the name stood for has lost a blob, or its repository has: look for each of them.
        return self._run(manifests, frozenset())

    def _run(self, manifests: Sequence[_Held], presumed: Set[Digest]) -> Sent:
        top = manifests[-1].descriptor
        ways = self._bring_all(manifests, presumed)
        for manifest in manifests[:-1]:
            self._put(manifest)
        attached = self._referrers([manifest.descriptor.digest for manifest in manifests])
        self.registry.put_manifest(self.reference, manifests[-1].raw, top.media_type)
        return Sent(
            descriptor=top,
            sent=ways[_Way.SENT],
            mounted=ways[_Way.MOUNTED],
            skipped=ways[_Way.SKIPPED],
            referrers=attached,
        )

    def _manifests(self, descriptor: Descriptor, depth: int = 0) -> Iterator[_Held]:
        """Yield all manifests to send, children before the index that names them."""
        if depth > _DEPTH:
            raise ManifestError(f"{self.reference} is an index of indexes, {depth} deep")
        raw = self.origin.read(descriptor, MANIFEST_LIMIT)
        document = parse(raw, descriptor.media_type, str(descriptor.digest))
        if isinstance(document, Manifest):
            yield _Held(descriptor=descriptor, raw=raw, blobs=document.blobs)
            return
        for child in document.manifests:
            if self.origin.has(child.digest):
                yield from self._manifests(child, depth + 1)
            elif self.registry.find_manifest(self.reference.with_digest(child.digest)) is None:
                # A pull for one platform brings the index, but not its other images.
                raise BlobMissing(
                    f"the index {descriptor.digest} names {child.digest}, "
                    f"which is neither here nor at {self.reference.name}",
                    hint="pull the image for all platforms, then push it again",
                )
        yield _Held(descriptor=descriptor, raw=raw, blobs=())

    def _bring_all(self, manifests: Sequence[_Held], presumed: Set[Digest]) -> dict[_Way, int]:
        """See to it that the repository has all blobs; return the bytes of each way."""
        bring = partial(self._bring, presumed)
        blobs = {blob.digest: blob for manifest in manifests for blob in manifest.blobs}
        ordered = sorted(blobs.values(), key=lambda blob: -blob.size)
        sizes = dict.fromkeys(_Way, 0)
        for blob, way in zip(ordered, each(ordered, bring), strict=True):
            sizes[way] += blob.size
        return sizes

    def _bring(self, presumed: Set[Digest], blob: Descriptor, beat: Callable[[], None]) -> _Way:
        """See to it that the repository has a blob, by the cheapest way."""
        beat()
        repository = self.reference.repository
        if blob.digest in presumed:
            return _Way.SKIPPED
        new = bool(presumed) and blob.size <= _SMALL
        if not new and self.registry.has_blob(repository, blob):
            return _Way.SKIPPED
        if self.registry.mount(repository, blob, origins=self.neighbours(blob.digest)):
            return _Way.MOUNTED
        task = self.progress.task(f"{self.verb} {label(blob)}", blob.size)
        source = partial(_watched, self.origin, blob, beat)
        self.registry.upload(repository, blob, source, task.advance)
        task.finish()
        return _Way.SENT

    def _put(self, manifest: _Held) -> None:
        named = self.reference.with_digest(manifest.descriptor.digest)
        self.registry.put_manifest(named, manifest.raw, manifest.descriptor.media_type)

    def _referrers(self, subjects: Sequence[Digest]) -> int:
        """Send what refers to the image, and what refers to that; return how many there were."""
        waiting, seen, sent = list(subjects), set(subjects), 0
        while waiting:
            subject = waiting.pop()
            found = [each for each in self.origin.referrers(subject) if each.digest not in seen]
            if not found:
                continue
            repository = self.reference.repository
            there = {
                each.digest for each in referrers.referrers(self.registry, repository, subject)
            }
            for descriptor in found:
                seen.add(descriptor.digest)
                if len(seen) > _MOST:
                    raise ManifestError(f"more than {_MOST} manifests refer to {self.reference}")
                if descriptor.digest not in there:
                    try:
                        about = artifact.about(subject, self.origin, descriptor)
                    except (RegistryError, HostileInput) as fault:
                        what = f"{descriptor.digest} refers to the image"
                        self.progress.say(f"{what} and is left behind: {fault.message}")
                        continue
                    self._attach(about, subject)
                    sent += 1
                waiting.append(descriptor.digest)
        return sent

    def _attach(self, found: artifact.Artifact, subject: Digest) -> None:
        blobs = tuple({each.digest: each for each in (found.config, *found.layers)}.values())
        held = _Held(descriptor=found.descriptor, raw=found.raw, blobs=blobs)
        self._bring_all([held], frozenset())
        repository = self.reference.repository
        referrers.attach(self.registry, repository, found.raw, found.descriptor, subject)


def _blobs_now(registry: Registry, reference: Reference) -> frozenset[Digest]:
    """Return the blobs of what a name stands for: after an edit, nearly all that is needed.

    One question instead of one for each layer. A registry keeps what its manifests name
    (distribution-spec, "Pushing Manifests"); one that does not says so when it is sent the
    next manifest.
    """
    if reference.digest is not None:
        return frozenset()
    try:
        return frozenset(_named_now(registry, reference))
    except HostileInput:
        return frozenset()  # it is about to be replaced
    except RegistryError as fault:
        # Who may not read may yet write; and what cannot be read (200) is about to be replaced.
        if fault.status not in {200, *ABSENT}:
            raise
        return frozenset()


def _named_now(registry: Registry, reference: Reference) -> Iterator[Digest]:
    found = registry.find_manifest(reference)
    if found is None:
        return
    raw, descriptor = found
    document = parse(raw, descriptor.media_type, str(reference))
    if isinstance(document, Manifest):
        yield from (blob.digest for blob in document.blobs)
        return
    source = registry.source(reference.repository)
    for child in document.manifests[:_PLATFORMS]:
        raw = source.read(child, MANIFEST_LIMIT)
        image = parse(raw, child.media_type, str(child.digest))
        if isinstance(image, Manifest):
            yield from (blob.digest for blob in image.blobs)


def _bounded(found: Iterator[_Held]) -> Iterator[_Held]:
    """Pass manifests on, but not endlessly: a stranger's index could fill the memory."""
    size = 0
    for count, held in enumerate(found, 1):
        size += len(held.raw)
        if count > _MOST or size > _LARGEST:
            raise ManifestError(f"{held.descriptor.digest} is one manifest too many for an image")
        yield held


def _watched(
    origin: Origin, blob: Descriptor, beat: Callable[[], None], offset: int
) -> Iterator[bytes]:
    for piece in origin.pieces(blob, offset):
        beat()
        yield piece
