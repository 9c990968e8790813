"""What an image holds, by size and by where it came from: the bars of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torchship.layers.layer import ORIGIN
from torchship.oci.describe import ImageDescription, LayerDescription

MOST_LAYERS = 12

_KINDS = {
    "base": "operating system and Python",
    "wheel": "wheels",
    "bytecode": "bytecode of Python",
    "data": "data",
    "source": "the project's own code",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of an image. ``start`` and ``share`` are in percent of its compressed size."""

    kind: str
    title: str
    origin: str
    size: int
    start: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageContents:
    """An image's ``kinds`` of content, from the bottom up, and its ``layers``, largest first."""

    size: int
    count: int
    kinds: tuple[Share, ...]
    layers: tuple[Share, ...]
    more: int
    more_size: int


def contents(image: ImageDescription) -> ImageContents:
    """Return what an image is made of."""
    sizes = dict.fromkeys(_KINDS, 0)
    for layer in image.layers:
        sizes[_kind(layer)] += layer.layer.size
    ordered = sorted(image.layers, key=lambda layer: (-layer.layer.size, layer.layer.digest.hex))
    shown, rest = ordered[:MOST_LAYERS], ordered[MOST_LAYERS:]
    return ImageContents(
        size=image.size,
        count=len(image.layers),
        kinds=_stacked(sizes, image.size),
        layers=tuple(_layer(layer, image.size) for layer in shown),
        more=len(rest),
        more_size=sum(layer.layer.size for layer in rest),
    )


def _stacked(sizes: Mapping[str, int], total: int) -> tuple[Share, ...]:
    found, below = [], 0
    for kind, size in sizes.items():
        if size:
            start = _percent(below, total)
            found.append(
                Share(
                    kind=kind,
                    title=_KINDS[kind],
                    origin="",
                    size=size,
                    start=start,
                    share=round(_percent(below + size, total) - start, 2),
                )
            )
        below += size
    return tuple(found)


def _layer(found: LayerDescription, total: int) -> Share:
    origin = found.origin.get(ORIGIN, "")
    return Share(
        kind=_kind(found),
        title=found.title or "a layer without a title",
        origin=origin.partition("@sha256:")[0],
        size=found.layer.size,
        start=0.0,
        share=_percent(found.layer.size, total),
    )


def _kind(layer: LayerDescription) -> str:
    """Tell by the annotation that says where a layer came from."""
    origin = layer.origin.get(ORIGIN, "")
    kinds = {"wheel": "wheel", "python": "bytecode", "data": "data"}
    found = kinds.get(origin.partition(":")[0])
    if found is None and layer.title.startswith("source,"):
        return "source"
    return found or "base"


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
