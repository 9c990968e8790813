"""An image on its way in from a registry, until a first training step, on a machine with nothing.

The registry is Debian's `docker-registry` on a loopback port, the images are those of `share`.
"""

from __future__ import annotations

from benchmarks.figures import Figure, Spread, at_least, ratio
from benchmarks.share import publishers
from benchmarks.sides import Side, in_turns
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import Workbench

ROUNDS = 3
AIM = 3  # times


def measure(bench: Workbench, tutorial: Tutorial, rounds: int) -> list[Figure]:
    """Fetch and run in turns, with nothing local."""
    ours, theirs = publishers(bench, tutorial)
    theirs.best()  # in the registry, to be fetched
    sides: dict[str, Side] = {
        "torchship": ours.first_step,
        "docker": lambda: theirs.first_step(theirs.name),
        "docker, our image": lambda: theirs.first_step(ours.name),
    }
    taken = in_turns(rounds, sides)
    mine, docker, mixed = (Spread(values=values, unit="s") for values in taken.values())
    faster = ratio(mine, docker)
    return [
        Figure(
            what="from the registry to a first training step, nothing local",
            mine=mine,
            against="`docker pull` and `docker run` of the best Dockerfile's image",
            theirs=docker,
            outcome=faster,
            aim=at_least(AIM, faster),
        ),
        Figure(
            what="· the same image",
            mine=mine,
            against="`docker pull` and `docker run` of torchship's image",
            theirs=mixed,
            outcome=ratio(mine, mixed),
        ),
    ]
