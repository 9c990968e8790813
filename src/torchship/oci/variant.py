"""Several images for one platform in one index: a CPU's and a GPU's, told apart by a name.

The image specification has no word for an accelerator. So the index carries the same platform
several times, and an annotation of ours beside each; whoever does not know it takes the first
(image-index.md: "If multiple manifests match a client or runtime's requirements, the first
matching entry SHOULD be used"). The config has the name as a label, for an image that stands
alone. See docs/decisions/0005-variants.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from torchship.digest import Descriptor
from torchship.platform import Platform

VARIANT = "dev.torchship.variant"
"""Annotation of a manifest in an index, and label of a config: the build of torch, as ``cu130``."""

Choice = Callable[[tuple[str, ...]], str]
"""Chooses one of the variants that are offered, in their order."""


class Labelled(Protocol):
    """An image, as far as is looked at here."""

    @property
    def descriptor(self) -> Descriptor:
        """Its manifest's, as its index has it."""

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of its config."""


def of(image: Labelled) -> str:
    """Return an image's variant, by its config or else its index; empty where it has none."""
    return image.labels.get(VARIANT, "") or noted(image.descriptor)


def noted(descriptor: Descriptor) -> str:
    """Return the variant that an index notes of a manifest; empty where it notes none."""
    return descriptor.annotations.get(VARIANT, "")


def offered(manifests: Iterable[Descriptor], platform: Platform) -> tuple[str, ...]:
    """Return the variants that an index notes for a platform, in its order."""
    names = (noted(each) for each in manifests if is_for(each.platform, platform))
    return tuple(dict.fromkeys(name for name in names if name))


def is_for(stated: Mapping[str, str] | None, platform: Platform) -> bool:
    """Tell whether an index states just this platform for a manifest."""
    found = stated or {}
    return (found.get("os"), found.get("architecture")) == (platform.os, platform.architecture)
