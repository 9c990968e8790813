"""The image of a job: looked up in its registry, where the nodes find it too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from torchship.digest import Descriptor
from torchship.errors import RegistryError, UsageError
from torchship.oci.image import Image, Source, manifests, read_image, read_one
from torchship.oci.reference import Reference
from torchship.oci.registry.client import Registry
from torchship.oci.store import Store
from torchship.oci.variant import Choice, offered
from torchship.platform import Platform
from torchship.project import builds


class Found(Struct, frozen=True, kw_only=True):
    """A published image. ``top`` is what its name stands for, maybe an index.

    ``reference`` is pinned by the digest of this platform's manifest.
    """

    reference: Reference
    top: Descriptor
    image: Image


def find(
    name: Reference,
    store: Store,
    *,
    platform: Platform | None,
    choice: Choice,
    variant: str | None = None,
    connect: Callable[[str], Registry] = Registry,
) -> Found:
    """Return the image of a platform that a registry has under a name.

    Without a platform it is the only one that there is, whatever this machine is; of several, this
    machine's. Of an image's variants it is ``variant``, or what ``choice`` takes.

    The store learns its documents, and where its layers are, so that a record can be attached
    to it; no layer is fetched. Raises `RegistryError` where the registry has no such image, and
    `UsageError` where the store has another one of that name.
    """
    registry = connect(name.registry)
    try:
        raw, top = registry.manifest(name)
        source = registry.source(name.repository)
        images = manifests(source, top)
        wanted = platform or _only(source, images) or Platform.host()
        names = offered(images, wanted)
        image = read_image(source, top, wanted, variant or (choice(names) if names else ""))
    except RegistryError as error:
        if error.status != 404:
            raise
        raise RegistryError(
            f"{name} is not in its registry, where the nodes would look for it",
            hint=f"push it first: torchship push {name}",
            request=error.request,
            status=error.status,
            code=error.code,
        ) from None
    held = {named.reference: named.descriptor.digest for named in store.images()}
    if held.get(name, top.digest) != top.digest:
        raise UsageError(
            f"{name} is one image here ({held[name].short}) and another in its registry "
            f"({top.digest.short}), which is what the nodes would run",
            hint=f"torchship push {name}, or torchship pull {name} to run the registry's",
        )
    store.put(raw, top.media_type)
    store.put(image.raw_manifest, image.descriptor.media_type)
    store.put(image.raw_config, image.config.media_type)
    store.origins.add(top.digest, [name])
    store.tag(name, top)
    return Found(reference=name.with_digest(image.descriptor.digest), top=top, image=image)


def _only(source: Source, images: Sequence[Descriptor]) -> Platform | None:
    """Return the platform of all these images; None where there are several."""
    if len(images) == 1:
        return read_one(source, images[0]).platform
    stated = [each.platform or {} for each in images]
    found = {(each.get("os", ""), each.get("architecture", "")) for each in stated}
    return Platform(*found.pop()) if len(found) == 1 else None


def for_nodes(gpus: int) -> Choice:
    """Return what chooses a variant for machines that nobody here can look at.

    With GPUs the newest CUDA, without the CPU's build; where there is none, the first.
    """

    def suiting(names: tuple[str, ...]) -> str:
        versions = {name: builds.cuda(name) for name in names}
        newest = max((v for v in versions.values() if v), default=None)
        if gpus and newest is not None:
            return next(name for name in names if versions[name] == newest)
        return builds.CPU if builds.CPU in names else names[0]

    return suiting
