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
from torchship.oci.registry import Registry
from torchship.oci.store import Store
from torchship.progress import Progress

_MOST = 1000


def pull_referrers(
    reference: Reference,
    store: Store,
    descriptor: Descriptor,
    *,
    progress: Progress,
    registry: Registry | None = None,
) -> tuple[Digest, ...]:
    """Bring what refers to an image of the store, or to a manifest of its index, and to that.

    Returns their digests: the store may hold more, from elsewhere. A referrer that cannot be
    fetched, is no artifact, or is over 64 MiB is reported and skipped; the image does not need it.
    """
    source = registry or Registry(reference.registry)
    waiting = [descriptor.digest, *(each.digest for each in held(store, descriptor))]
    waiting = list(dict.fromkeys(waiting))
    seen = set(waiting)
    brought = []
    for subject in waiting:
        for found in _listed(source, reference, subject, progress):
            if found.digest in seen or len(seen) > _MOST:
                continue
            seen.add(found.digest)
            waiting.append(found.digest)
            try:
                _take(store, source, reference, found, subject, progress)
            except (RegistryError, HostileInput) as fault:
                progress.say(f"{found.digest} refers to the image and is left out: {fault.message}")
                continue
            brought.append(found.digest)
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
    descriptor: Descriptor,
    subject: Digest,
    progress: Progress,
) -> None:
    found = artifact.about(subject, registry.source(reference.repository), descriptor)
    store.put(found.raw, descriptor.media_type)
    blobs = (found.config, *found.layers)
    fetch_blobs(blobs, reference, store, registry=registry, progress=progress)
    store.attach(found.descriptor)
