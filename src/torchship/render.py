"""What commands answer, as text: tables that fit a terminal and survive a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from torchship.amounts import counted, size
from torchship.display import clean
from torchship.layers.layer import ORIGIN
from torchship.oci.describe import ImageDescription, LayerDescription

_BAR = 20
_ROOM = 48


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int]) -> str:
    """Set rows in columns; those numbered in ``right`` are flush right, as numbers are."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def inspected(images: Sequence[ImageDescription]) -> str:
    """Show each platform's image: what it starts, then its layers, from the bottom up."""
    return "\n\n".join(_image(found) for found in images)


def _image(found: ImageDescription) -> str:
    image = found.image
    facts = [
        ("image", str(image.descriptor.digest)),
        ("platform", f"{image.platform} {image.variant}".strip()),
        ("command", " ".join((*image.entrypoint, *image.command))),
        ("directory", image.workdir),
        ("user", image.user or "root"),
        ("created", image.created or "not said"),
        ("size", f"{size(found.size)} in {counted(len(found.layers), 'layer')}"),
    ]
    told = "\n".join(f"{name + ':':<11}{clean(value)}" for name, value in facts)
    rows = [_layer(place, layer) for place, layer in enumerate(found.layers, 1)]
    layers = table(("#", "size", "share", "", "holds", "from"), rows, frozenset({0, 1, 2}))
    return "\n\n".join((told, layers, *([_referrers(found)] if found.referrers else [])))


def _referrers(found: ImageDescription) -> str:
    rows = [
        (
            clean(descriptor.artifact_type or "-"),
            descriptor.digest.short,
            clean("; ".join(_origin(key, value) for key, value in descriptor.annotations.items())),
        )
        for descriptor in found.referrers
    ]
    return table(("attached to it", "digest", ""), rows, frozenset())


def _layer(place: int, found: LayerDescription) -> tuple[str, ...]:
    bar = "█" * round(found.share * _BAR)
    origin = "; ".join(_origin(key, value) for key, value in found.origin.items())
    return (
        str(place),
        size(found.layer.size),
        f"{found.share:.1%}",
        bar,
        clean(found.title or "-"),
        clean(origin or "-"),
    )


def _origin(key: str, value: str) -> str:
    """Write where content came from in what a line has room for; `--json` has all of it."""
    named = value.partition("@sha256:")[0]
    short = named if len(named) <= _ROOM else f"{named[: _ROOM - 3]}..."
    return short if key == ORIGIN else f"{key.removeprefix('dev.torchship.')} {short}"
