"""Training on MNIST with examples/mnist, against the loop of PyTorch's own example.

Runs `epoch_vs_stock.py` in a virtual environment with torch and pillow.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.figures import Figure, Spread, at_least, ratio
from benchmarks.sides import Failed, LeftOut, output, say
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import PIP, ROOT, Workbench

ROUNDS = 15
AIM = 1  # times: never slower


def measure(bench: Workbench, tutorial: Tutorial, rounds: int) -> list[Figure]:  # noqa: ARG001
    """Train blocks of batches in turns, in one process."""
    say("adding pillow, which the stock side makes its images with")
    pip = [*PIP, "--python", bench.python, "install", "--quiet"]
    try:
        output([*pip, "--only-binary=:all:", "pillow"])
    except Failed:
        raise LeftOut("no package index gives pillow") from None
    script = ROOT / "benchmarks" / "epoch_vs_stock.py"
    say("training")
    arguments = ["--data", data(bench), "--blocks", str(rounds), "--json"]
    found = json.loads(output([bench.python, script, *arguments]))
    mine = Spread(values=tuple(found["examples/mnist"]), unit="ms")
    theirs = Spread(values=tuple(found["stock"]), unit="ms")
    times = ratio(mine, theirs)
    return [
        Figure(
            what="a batch of examples/mnist on the CPU",
            mine=mine,
            against="PyTorch's example, per-sample loader",
            theirs=theirs,
            outcome=times,
            aim=at_least(AIM, times),
        )
    ]


def data(bench: Workbench) -> Path:
    """Return a folder with MNIST's four files, or with digits drawn here: the time is the same."""
    assert bench.project
    folder = bench.scratch / "data"
    if bench.lock.data:
        folder.mkdir()
        for pin in bench.lock.data:
            (folder / pin.filename).symlink_to(bench.download(pin.digest, pin.filename))
    else:
        say("drawing synthetic digits in place of MNIST")
        output([sys.executable, ROOT / "examples" / "synthetic_digits.py", folder])
    return folder
