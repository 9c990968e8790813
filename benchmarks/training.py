"""Whole trainings of examples/mnist-fast, against epochs of PyTorch's own example.

Runs `training_vs_stock.py` in a virtual environment with torch and pillow.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass

from benchmarks.epoch import data
from benchmarks.figures import Aim, Figure, Spread, at_least, ratio
from benchmarks.sides import Failed, LeftOut, output, say
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import PIP, ROOT, Workbench

ROUNDS = 10  # seeds
BATCHES = 938  # of the stock example in one epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What a --target is to reach: percents on the test images, and how much faster than epochs."""

    target: str
    mean: float
    floor: float  # of every seed
    epochs: int  # of the stock example
    times: float


GOALS = (
    Goal(target="99.0", mean=99.0, floor=98.9, epochs=4, times=100),
    Goal(target="99.25", mean=99.25, floor=99.1, epochs=14, times=150),
    Goal(target="99.5", mean=99.5, floor=99.4, epochs=14, times=50),
)


def measure(bench: Workbench, tutorial: Tutorial, rounds: int) -> list[Figure]:  # noqa: ARG001
    """Train each target with each seed, between blocks of stock batches, in one process."""
    if not bench.lock.data:
        raise LeftOut("accuracy is that on MNIST, which is not here")
    say("adding pillow, which the stock side makes its images with")
    pip = [*PIP, "--python", bench.python, "install", "--quiet"]
    try:
        output([*pip, "--only-binary=:all:", "pillow"])
    except Failed:
        raise LeftOut("no package index gives pillow") from None
    say("training")
    script = ROOT / "benchmarks" / "training_vs_stock.py"
    targets = [goal.target for goal in GOALS]
    arguments = ["--data", data(bench), "--seeds", str(rounds), "--targets", *targets, "--json"]
    found = json.loads(output([bench.python, script, *arguments]))
    return [figure for goal in GOALS for figure in figures(goal, found[goal.target])]


def figures(goal: Goal, runs: list[dict[str, float]]) -> tuple[Figure, Figure]:
    """Return how fast a target was reached, and whether it was."""
    seconds = Spread(values=tuple(run["seconds"] for run in runs), unit="s")
    stock = Spread(
        values=tuple(run["stock_ms"] / 1000 * BATCHES * goal.epochs for run in runs), unit="s"
    )
    times = ratio(seconds, stock)
    found = [run["accuracy"] for run in runs]
    mean = statistics.mean(found)
    return (
        Figure(
            what=f"examples/mnist-fast, `--target {goal.target}`, training and test",
            mine=seconds,
            against=f"PyTorch's example, {goal.epochs} epochs without tests",
            theirs=stock,
            outcome=times,
            aim=at_least(goal.times, times),
        ),
        Figure(
            what=f"· its accuracy, mean of seeds 1 to {len(runs)}",
            verdict=f"{mean:.3f}% ({min(found):.2f} to {max(found):.2f})",
            aim=Aim(
                text=f"mean ≥ {goal.mean:g}%, each ≥ {goal.floor:g}%",
                reached=mean >= goal.mean and min(found) >= goal.floor,
            ),
        ),
    )
