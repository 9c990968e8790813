"""What commands answer, as text: tables that fit a terminal and survive a pipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torchship.amounts import counted, size
from torchship.display import clean
from torchship.layers.layer import ORIGIN
from torchship.oci.describe import ImageDescription, LayerDescription

if TYPE_CHECKING:
    from torchship.runs.listing import ListedRecord, ListedVerdict, Listing
    from torchship.runs.record import Claim, Record

_BAR = 20
_ROOM = 48
_MOST_CLAIMS = 6


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


def listed(found: Listing) -> str:
    """Show an image's records with their claims, and the verdicts on them; empty for none."""
    return "\n".join(_listed(found))


def _listed(found: Listing) -> Iterator[str]:
    if found.records:
        yield "records"
    for record in found.records:
        yield from _record(record)
    if found.verdicts:
        yield "verdicts"
    for verdict in found.verdicts:
        yield _verdict(verdict)
    if found.more:
        yield f"and {found.more} more that were not read"


def _record(found: ListedRecord) -> Iterator[str]:
    if found.published is None:
        yield f"  {found.artifact.short}  counts for nothing: {_line(found.fault, 250)}"
        return
    record = found.published.record
    yield f"  {found.published.digest.short}  {_made(record)}"
    for claim in record.claims[:_MOST_CLAIMS]:
        yield f"    {_claim(claim)}"
    if len(record.claims) > _MOST_CLAIMS:
        yield f"    and {len(record.claims) - _MOST_CLAIMS} more"


def _verdict(found: ListedVerdict) -> str:
    if found.own is None or not found.wording:
        return f"  {found.artifact.short}  counts for nothing: {_line(found.fault, 250)}"
    about = found.author.removeprefix("sha256:")[:12]
    fault = f" ({_line(found.fault, 250)})" if found.fault else ""
    return f"  {found.artifact.short}  {found.wording}{fault}, of {about}: {_made(found.own)}"


def _made(record: Record) -> str:
    """Say when, how often and on what, as far as the record's own author tells."""
    hardware = record.hardware
    gpus = hardware.gpus if hardware else ()
    where = gpus[0].name if gpus else hardware.cpu if hardware and hardware.cpu else ""
    on = f" on {_line(where)}" if where else ""
    return f"{record.recorded:%Y-%m-%d %H:%M} UTC, {counted(len(record.runs), 'run')}{on}"


def _claim(claim: Claim) -> str:
    spread = "" if claim.spread is None else f" ± {claim.spread:.2g}"
    return f"{_line(claim.name)} {claim.mean:.6g}{spread}, n = {claim.n}"


def _line(text: str, room: int = 2 * _ROOM) -> str:
    """Leave of a stranger's text what a terminal does not obey and a line has room for."""
    short = text if len(text) <= room else f"{text[: room - 3]}..."
    return clean(" ".join(short.split()))


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
