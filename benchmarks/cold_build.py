"""A build with nothing but the downloads, against `docker build` of the tutorial's Dockerfile.

Both start from downloaded files and no work done: torchship from its folder of downloads, and
makes the base too; Docker from a base image that it has, and an index of the same wheels on a
loopback port.
"""

from __future__ import annotations

from benchmarks.figures import Figure, Spread, at_least, ratio
from benchmarks.sides import LeftOut, Side, in_turns
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import Workbench

ROUNDS = 3
AIM = 10  # times


def measure(bench: Workbench, tutorial: Tutorial, rounds: int) -> list[Figure]:
    """Build both in turns."""
    assert bench.uncompiled
    sides: dict[str, Side] = {
        "torchship build": bench.cold_build,
        "torchship build, no bytecode": bench.cold_build_uncompiled,
    }
    try:
        tutorial.prepare()
        sides["docker build"] = tutorial.build
    except LeftOut as why:
        bench.leave_out("cold_build: docker build", why)
    taken = in_turns(rounds, sides)
    mine = Spread(values=taken["torchship build"], unit="s")
    bare = Spread(values=taken["torchship build, no bytecode"], unit="s")
    what, part = "cold build of examples/mnist", '· the same, `bytecode = "none"`'
    if "docker build" not in taken:
        return [Figure(what=what, mine=mine), Figure(what=part, mine=bare)]
    theirs = Spread(values=taken["docker build"], unit="s")
    times = ratio(mine, theirs)
    return [
        Figure(
            what=what,
            mine=mine,
            against="`docker build`, tutorial",
            theirs=theirs,
            outcome=times,
            aim=at_least(AIM, times),
        ),
        Figure(
            what=part,
            mine=bare,
            against="`docker build`, tutorial",
            theirs=theirs,
            outcome=ratio(bare, theirs),
        ),
    ]
