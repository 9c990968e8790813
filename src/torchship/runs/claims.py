"""The claims that follow from an author's runs: mean, spread and tolerance of each metric."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal

from torchship.project.project import Metric
from torchship.runs.curve import tells_time
from torchship.runs.record import Claim, Run
from torchship.runs.student import quantile


def claims(runs: Sequence[Run], metrics: Iterable[Metric] = ()) -> tuple[Claim, ...]:
    """Return a claim for each declared metric that every successful run gave.

    Where none is declared, every number that all the runs gave is claimed, but those that tell
    times: then which way is better is not known.
    """
    done = observations(runs)
    declared = {metric.name: metric for metric in metrics}
    given = set.intersection(*(set(run.metrics) for run in done)) if done else set()
    undeclared = sorted(name for name in given if not tells_time(name))
    names = [name for name in declared if name in given] if declared else undeclared
    return tuple(claim(name, done, declared.get(name)) for name in names)


def claim(name: str, done: Sequence[Run], metric: Metric | None) -> Claim:
    """Return the claim of one metric over independent runs, all of which gave it."""
    values = [run.metrics[name] for run in done]
    spread = sample_deviation(values)
    frozen = metric.tolerance if metric else None
    origin: Literal["declared", "runs"] | None = None
    if frozen is not None:
        origin = "declared"
    elif spread is not None:
        origin, frozen = "runs", tolerance(spread, len(values))
    return Claim(
        name=name,
        n=len(values),
        mean=average(values),
        spread=spread,
        better=metric.better if metric else None,
        tolerance=None if frozen is None else float(frozen),
        tolerance_from=origin,
        examples=metric.examples if metric else None,
    )


def observations(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Return the successful runs that are independent of each other.

    Runs without a seed that all gave the same numbers, but for times, are one run, made again:
    they say nothing of the spread between seeds, which would otherwise pass for zero.
    """
    done = tuple(run for run in runs if run.status == 0)
    unseeded = all(run.seed is None for run in done)
    if unseeded and len(done) > 1 and len({_numbers(run) for run in done}) == 1:
        return done[:1]
    return done


def _numbers(run: Run) -> frozenset[tuple[str, float]]:
    return frozenset(each for each in run.metrics.items() if not tells_time(each[0]))


def tolerance(spread: float, n: int) -> float:
    """Return how far the mean of a reproduction may be off: two prediction half-widths.

    2 t(.95, n-1) s sqrt(1 + 1/n): twice what one further run of the author's own would
    stay within in nine cases of ten.
    """
    return 2 * quantile(0.95, n - 1) * spread * math.sqrt(1 + 1 / n)


def average(values: Sequence[float]) -> float:
    """Return the mean, rounded once: the same on every machine, in any order."""
    return float(statistics.mean(values))


def sample_deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (n - 1), rounded once; None for a single value."""
    return float(statistics.stdev(values)) if len(values) > 1 else None
