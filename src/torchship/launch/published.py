"""The image of a job: looked up in its registry, where the nodes find it too."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from torchship.digest import Descriptor
from torchship.errors import RegistryError
from torchship.oci.image import Image, manifests, read_image
from torchship.oci.reference import Reference
from torchship.oci.registry import Registry
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
    platform: Platform,
    choice: Choice,
    variant: str | None = None,
    connect: Callable[[str], Registry] = Registry,
) -> Found:
    """Return the image of a platform that a registry has under a name.

    Of an image's variants it is ``variant``, or what ``choice`` takes.

    The store learns its documents, and where its layers are, so that a record can be attached
    to it; no layer is fetched. Raises `RegistryError` where the registry has no such image.
    """
    registry = connect(name.registry)
    try:
        raw, top = registry.manifest(name)
        source = registry.source(name.repository)
        names = offered(manifests(source, top), platform)
        image = read_image(source, top, platform, variant or (choice(names) if names else ""))
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
    store.put(raw, top.media_type)
    store.put(image.raw_manifest, image.descriptor.media_type)
    store.put(image.raw_config, image.config.media_type)
    store.origins.add(top.digest, [name])
    store.tag(name, top)
    return Found(reference=name.with_digest(image.descriptor.digest), top=top, image=image)


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
