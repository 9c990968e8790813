"""Bytes of the image, compressed: what a registry keeps and a machine without it downloads."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping

from benchmarks.figures import Figure, Spread, below, ratio
from benchmarks.sides import LeftOut, output
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import TORCHSHIP, Workbench

ROUNDS = 1
AIM = 260  # MB
_ORIGIN = "dev.torchship.layer.origin"


def measure(bench: Workbench, tutorial: Tutorial, rounds: int) -> list[Figure]:  # noqa: ARG001
    """Add up the layers by what they hold; sizes have no spread, so one round is enough."""
    digest = bench.image()
    shown = output([TORCHSHIP, "inspect", digest, "--json"], bench.environment)
    [image] = json.loads(shown)
    parts: dict[str, int] = defaultdict(int)
    for layer in image["layers"]:
        parts[_part(layer)] += layer["size"]
    with_data = "with MNIST" if parts["data"] else "without data"
    whole = _megabytes(image["size"])
    try:
        against, theirs = "tutorial's image, without data", _megabytes(tutorial.size())
    except LeftOut as why:
        bench.leave_out("size: Docker's image", why)
        against, theirs = "", None
    total = Figure(
        what=f"image, compressed, {with_data}",
        mine=whole,
        against=against,
        theirs=theirs,
        outcome=ratio(whole, theirs) if theirs else None,
        aim=below(AIM, whole),
    )
    split = [
        Figure(what=f"· {part}", mine=_megabytes(size)) for part, size in parts.items() if size
    ]
    return [total, *split]


def _part(layer: Mapping[str, object]) -> str:
    title, origin = str(layer["title"]), layer["origin"]
    kind = str(origin.get(_ORIGIN, "") if isinstance(origin, dict) else "").partition(":")[0]
    if title.startswith("bytecode"):
        return "bytecode"
    return {"debian": "base", "wheel": "wheels", "data": "data"}.get(kind, "source and layout")


def _megabytes(size: int) -> Spread:
    return Spread(values=(size / 1e6,), unit="MB")
