"""What an engine holds already: images, their names, and which of them torchship made."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from msgspec import Struct

from torchship.oci.image import Image

_MADE_BY_US = "dev.torchship."


class Held(Struct, frozen=True, kw_only=True):
    """An image that an engine holds, by the engine's own name for it."""

    id: str
    tags: frozenset[str]
    ours: bool


def parse(answer: str) -> tuple[Held, ...]:
    """Read lines of ``[id, tags, labels]``, as JSON; an image that is there twice is told once."""
    found = {}
    for line in answer.splitlines():
        if line.startswith("["):
            identity, tags, labels = json.loads(line)
            found[identity] = Held(id=identity, tags=frozenset(tags or ()), ours=_ours(labels))
    return tuple(found.values())


def _ours(labels: object) -> bool:
    """Tell whether an image was built by torchship, by its labels."""
    return isinstance(labels, dict) and any(str(name).startswith(_MADE_BY_US) for name in labels)


def free(
    names: Sequence[str], image: Image, held: Collection[Held], identities: Collection[str]
) -> tuple[str, ...]:
    """Return those names that an image may have in the engine, at least one of its own.

    A name that somebody else's image has there stays with it. ``identities`` are what the
    engine may call the image.
    """
    foreign = {tag for one in held if one.id not in identities and not one.ours for tag in one.tags}
    found = tuple(name for name in names if name not in foreign)
    # An image without any name would be one of many that nobody knows
    return found or (f"localhost/torchship:{image.descriptor.digest.short}",)
