"""`torchship --help`, against a Python that does nothing: every command pays this."""

from __future__ import annotations

import sys
from functools import partial

from benchmarks.figures import Figure, Spread, added, below
from benchmarks.sides import in_turns, seconds
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import TORCHSHIP, Workbench

ROUNDS = 21
AIM = 0.15  # seconds


def measure(bench: Workbench, tutorial: Tutorial, rounds: int) -> list[Figure]:  # noqa: ARG001
    """Start both in turns."""
    sides = {
        "torchship --help": partial(seconds, [TORCHSHIP, "--help"]),
        "python -c pass": partial(seconds, [sys.executable, "-c", "pass"]),
    }
    for side in sides.values():
        side()  # the first start reads the files from the disk, and may compile them
    mine, theirs = (Spread(values=taken, unit="s") for taken in in_turns(rounds, sides).values())
    return [
        Figure(
            what="`torchship --help`",
            mine=mine,
            against="`python -c pass`",
            theirs=theirs,
            outcome=added(mine, theirs),
            aim=below(AIM, mine),
        )
    ]
