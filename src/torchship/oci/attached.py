"""What refers to a published image (records, signatures), brought into the store with it."""

from __future__ import annotations

from collections.abc import Iterable

from torchship.digest import Descriptor, Digest
from torchship.errors import HostileInput, RegistryError
from torchship.oci import artifact, mediatypes
from torchship.oci.image import held
from torchship.oci.manifest import Index, parse
from torchship.oci.pull import fetch_blobs
from torchship.oci.reference import Reference
from torchship.oci.referrers import referrers
from torchship.oci.registry.client import Registry
from torchship.oci.store import Store
from torchship.progress import Progress

_MOST = 1000  # manifests

_TOGETHER = 256 << 20
"""Bytes of all that refers to an image: anybody may attach to a public one, and all of it comes."""


def pull_referrers(
    reference: Reference,
    store: Store,
    descriptor: Descriptor,
    *,
    progress: Progress,
    registry: Registry | None = None,
) -> tuple[Digest, ...]:
    """Bring what refers to an image of the store, or to a manifest of its index, and to that.

    Returns their digests: the store may hold more, from elsewhere. The image is there without
    them: what cannot be had of them, or is no artifact, or larger than 64 MiB, is told and left
    out, and so is what goes beyond 1000 of them, or beyond 256 MiB together.
    """
    source = registry or Registry(reference.registry)
    waiting = [descriptor.digest, *(each.digest for each in held(store, descriptor))]
    waiting = list(dict.fromkeys(waiting))
    seen = set(waiting)
    most = len(seen) + _MOST
    brought: list[Digest] = []
    left, rest = _TOGETHER, False
    for subject in waiting:
        for found in _listed(source, reference, subject, progress):
            if found.digest in seen:
                continue
            if len(seen) == most:
                rest = True
                break
            seen.add(found.digest)
            try:
                about = artifact.about(subject, source.source(reference.repository), found)
                if about.size > left:
                    rest = True
                    continue
                left -= about.size
                _take(store, source, reference, about, progress)
            except (RegistryError, HostileInput) as fault:
                progress.say(f"{found.digest} refers to the image and is left out: {fault.message}")
                continue
            waiting.append(found.digest)
            brought.append(found.digest)
    if rest:
        progress.say(
            f"more than {_MOST} manifests refer to the image, or more than {_TOGETHER >> 20} MiB: "
            "what is beyond that is left out"
        )
    return tuple(brought)


def refers(reference: Reference, artifact_type: str, *, registry: Registry | None = None) -> bool:
    """Tell whether anything of that type refers to an image, or to a manifest of its index.

    Asks the registry, and brings nothing into the store. An index of indexes is not looked into:
    of that it is True. Raises `RegistryError` or `ManifestError`.
    """
    source = registry or Registry(reference.registry)
    raw, top = source.manifest(reference)
    document = parse(raw, top.media_type, str(reference))
    children = document.manifests if isinstance(document, Index) else ()
    if any(child.media_type in mediatypes.INDEXES for child in children):
        return True
    return any(
        referrers(source, reference.repository, digest, artifact_type)
        for digest in dict.fromkeys((top.digest, *(child.digest for child in children)))
    )


def _listed(
    registry: Registry, reference: Reference, subject: Digest, progress: Progress
) -> Iterable[Descriptor]:
    try:
        return referrers(registry, reference.repository, subject)
    except (RegistryError, HostileInput) as fault:
        progress.say(f"what refers to {subject} cannot be listed: {fault.message}")
        return ()


def _take(
    store: Store,
    registry: Registry,
    reference: Reference,
    found: artifact.Artifact,
    progress: Progress,
) -> None:
    store.put(found.raw, found.descriptor.media_type)
    blobs = (found.config, *found.layers)
    fetch_blobs(blobs, reference, store, registry=registry, progress=progress)
    store.attach(found.descriptor)
