"""A build with nothing but the downloads, against `docker build` of the tutorial's Dockerfile.

Both start from downloaded files and no work done: torchship from its folder of downloads; Docker
from a base image that it has, and an index of the same wheels on a loopback port. Torchship has its
base, too, as Docker has (another project was built on it); or makes even that.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import Figure, Spread, at_least, ratio
from benchmarks.sides import LeftOut, Side, in_turns
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import Workbench

ROUNDS = 3
AIM = 10  # times


def measure(bench: Workbench, tutorial: Tutorial, rounds: int) -> list[Figure]:
    """Build both in turns."""
    assert bench.uncompiled
    assert bench.script
    sides: dict[str, Side] = {
        "torchship build": bench.build_on_a_base,
        "torchship build, base too": bench.cold_build,
        "torchship build, no bytecode": bench.cold_build_uncompiled,
    }
    try:
        tutorial.prepare()
        sides["docker build"] = tutorial.build
    except LeftOut as why:
        bench.leave_out("cold_build: docker build", why)
    taken = in_turns(rounds, sides)
    rows = {
        "cold build of examples/mnist, the base there": "torchship build",
        "· the base made, too": "torchship build, base too",
        '· the same, `bytecode = "none"`': "torchship build, no bytecode",
    }
    return [_row(what, taken[side], taken.get("docker build")) for what, side in rows.items()]


def _row(what: str, taken: Sequence[float], by_docker: Sequence[float] | None) -> Figure:
    mine = Spread(values=taken, unit="s")
    if by_docker is None:
        return Figure(what=what, mine=mine)
    theirs = Spread(values=by_docker, unit="s")
    times = ratio(mine, theirs)
    return Figure(
        what=what,
        mine=mine,
        against="`docker build`, tutorial",
        theirs=theirs,
        outcome=times,
        aim=at_least(AIM, times),
    )
