"""The first native run of an image, which unpacks its layers, against GNU tar and gzip."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

from benchmarks.figures import Figure, Spread, ratio
from benchmarks.sides import LeftOut, in_turns, output, seconds
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import TORCHSHIP, Workbench

ROUNDS = 2


def measure(bench: Workbench, tutorial: Tutorial, rounds: int) -> list[Figure]:  # noqa: ARG001
    """Unpack every layer of examples/mnist in turns."""
    if shutil.which("tar") is None or shutil.which("gzip") is None:
        raise LeftOut("there is no tar or no gzip")
    digest = bench.image()
    shown = output([TORCHSHIP, "inspect", digest, "--json"], bench.environment)
    [image] = json.loads(shown)
    blobs = bench.home / "oci" / "blobs" / "sha256"
    layers = [blobs / layer["digest"].removeprefix("sha256:") for layer in image["layers"]]
    numbers = itertools.count()

    def scratch() -> Path:
        return bench.scratch / "unpacked" / str(next(numbers))

    def ours() -> float:
        for folder in (bench.home / "unpacked").glob("*"):
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        command = [TORCHSHIP, "run", "--engine", "native", "-o", scratch(), digest]
        return seconds([*command, "--", "true"], bench.environment)

    def tar() -> float:
        folder = scratch()
        folder.mkdir(parents=True)
        taken = sum(seconds(["tar", "-xzf", layer, "-C", folder]) for layer in layers)
        shutil.rmtree(folder)
        return taken

    taken = in_turns(rounds, {"first torchship run": ours, "tar -xzf": tar})
    mine, theirs = (Spread(values=values, unit="s") for values in taken.values())
    return [
        Figure(
            what="first `torchship run` of an image (`true`)",
            mine=mine,
            against="`tar -xzf` of its layers",
            theirs=theirs,
            outcome=ratio(mine, theirs),
        )
    ]
