"""One claim, judged: what an author's runs gave of it, and what a reproduction's did.

The test is Student's, on the difference of two means; docs/reproducing.md says it in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from torchship.runs.claims import average, sample_deviation
from torchship.runs.record import Claim, Run
from torchship.runs.student import quantile

WITHIN_CHANCE = 0.95
"""One-sided: the interval that must lie within the tolerance has 90%."""

BEYOND_CHANCE = 0.995
"""One-sided: a difference counts as real where chance gives it in one of a hundred cases."""

_BINOMIAL = 1.96

_ROUNDING = 1e-5
"""Of a number in single precision that was summed in another order: how far it may be off."""


class Level(StrEnum):
    """The five verdicts, in their own words."""

    BIT_IDENTICAL = "BIT-IDENTICAL"
    WITHIN_TOLERANCE = "WITHIN TOLERANCE"
    NOT_REPRODUCED = "NOT REPRODUCED"
    INCONCLUSIVE = "INCONCLUSIVE"
    COULD_NOT_RUN = "COULD NOT RUN"

    @property
    def exit_code(self) -> int:
        """What a command that reached this verdict exits with."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Level.BIT_IDENTICAL: 0,
    Level.WITHIN_TOLERANCE: 0,
    Level.NOT_REPRODUCED: 1,
    Level.INCONCLUSIVE: 3,
    Level.COULD_NOT_RUN: 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Binomial:
    """What two single accuracies on ``examples`` examples may differ by, were errors independent.

    ``bound`` is 1.96 sqrt(2) sqrt(p (1-p) / N): 95% of the differences stay below it.
    """

    examples: int
    p: float
    bound: float
    consistent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One claim, judged. ``n`` and ``m`` count the author's and the reproducer's runs.

    ``difference`` is the reproducer's mean less the author's; ``spread`` the standard deviation
    that was used, with ``df`` degrees of freedom; ``error`` the difference's standard error;
    ``near`` and ``far`` are t(.95, df) and t(.995, df) times that. Each is None where the runs
    do not tell it.
    """

    claim: Claim
    level: Level
    n: int
    m: int
    author: float
    reproducer: float | None = None
    difference: float | None = None
    spread: float | None = None
    df: int | None = None
    error: float | None = None
    near: float | None = None
    far: float | None = None
    better: bool | None = None
    binomial: Binomial | None = None
    reason: str = ""


def judge(
    claim: Claim,
    author: Sequence[Run],
    reproducer: Sequence[Run],
    *,
    every: Sequence[Run] | None = None,
) -> Judgement:
    """Judge one claim by independent runs of both sides.

    ``every`` are all runs of the reproducer, where ``reproducer`` are those that count in the mean:
    each of them must have given a number.

    With D the difference of the means and SE its standard error: within tolerance where
    |D| + t(.95, df) SE <= delta; not reproduced where |D| > delta and |D| > t(.995, df) SE;
    inconclusive otherwise, and whenever no spread is known.
    """
    n, m = len(author), len(reproducer)
    theirs = [run.metrics[claim.name] for run in author]
    center = average(theirs)
    blank = Judgement(claim=claim, level=Level.INCONCLUSIVE, n=n, m=m, author=center)
    if found := _unjudgeable(blank, reproducer if every is None else every):
        return found
    ours = [run.metrics[claim.name] for run in reproducer]
    mean = average(ours)
    difference = mean - center
    spread, df = _spread(theirs, ours)
    error = None if spread is None else spread * math.sqrt(1 / n + 1 / m)
    near = None if error is None else quantile(WITHIN_CHANCE, df) * error
    far = None
    if spread is not None:
        far = quantile(BEYOND_CHANCE, df) * max(spread, _least(claim)) * math.sqrt(1 / n + 1 / m)
    level, reason = _level(abs(difference), claim.tolerance, near, far)
    binomial = _binomial(claim, center, mean) if n == m == 1 else None
    if binomial is not None and level is Level.INCONCLUSIVE:
        verb = "consistent" if binomial.consistent else "not consistent"
        reason = f"{verb} if errors are independent (variance assumed); {reason}"
    return replace(
        blank,
        level=level,
        reproducer=mean,
        difference=difference,
        spread=spread,
        df=df or None,
        error=error,
        near=near,
        far=far,
        better=_is_better(difference, claim),
        binomial=binomial,
        reason=reason,
    )


def _unjudgeable(blank: Judgement, every: Sequence[Run]) -> Judgement | None:
    """Return what comes of a claim that a run gave no number for; None where all gave one."""
    name = blank.claim.name
    if any(name in run.diverged for run in every):
        return replace(
            blank,
            level=Level.NOT_REPRODUCED,
            better=False,
            reason="it came out as NaN, or infinite",
        )
    given = sum(name in run.metrics for run in every)
    if given < len(every):
        return replace(blank, reason=f"the reproduction gave it in {given} of {len(every)} runs")
    return None


def _least(claim: Claim) -> float:
    """Return the spread that runs have at least, however alike they came out.

    Some equal numbers are no proof that the next would be equal, too: an accuracy moves by whole
    examples, and the last digits of a sum by the order in which a processor adds.
    """
    if claim.spread != 0.0:
        return 0.0
    return 1 / claim.examples if claim.examples else _ROUNDING * abs(claim.mean)


def _is_better(difference: float, claim: Claim) -> bool | None:
    if claim.better is None or not difference:
        return None
    return (difference > 0) == (claim.better == "higher")


def _level(
    distance: float, tolerance: float | None, near: float | None, far: float | None
) -> tuple[Level, str]:
    if near is None or far is None:
        return Level.INCONCLUSIVE, "one run each: no spread is known; make more runs"
    if tolerance is None:
        return Level.INCONCLUSIVE, "one run of the author's sets no tolerance"
    if distance + near <= tolerance:
        return Level.WITHIN_TOLERANCE, ""
    if distance > tolerance and distance > far:
        return Level.NOT_REPRODUCED, "the difference is beyond the tolerance, and beyond chance"
    if distance > tolerance:
        return Level.INCONCLUSIVE, "beyond the tolerance, but not beyond chance; make more runs"
    return Level.INCONCLUSIVE, "chance alone could carry it beyond the tolerance; make more runs"


def _spread(author: Sequence[float], reproducer: Sequence[float]) -> tuple[float | None, int]:
    """Return the standard deviation and its degrees of freedom.

    The author's alone (df n-1) for a single reproduction, else both pooled (df n+m-2).
    """
    n, m = len(author), len(reproducer)
    df = n + m - 2
    if df < 1:
        return None, 0
    squares = sum(
        (len(values) - 1) * (sample_deviation(values) or 0.0) ** 2
        for values in (author, reproducer)
    )
    if m == 1:
        return sample_deviation(author), df
    return math.sqrt(squares / df), df


def _binomial(claim: Claim, author: float, reproducer: float) -> Binomial | None:
    """Return what chance alone allows two accuracies to differ by; None for another metric."""
    if claim.examples is None or not (0 <= author <= 1 and 0 <= reproducer <= 1):
        return None
    p = (author + reproducer) / 2
    bound = _BINOMIAL * math.sqrt(2) * math.sqrt(p * (1 - p) / claim.examples)
    return Binomial(
        examples=claim.examples, p=p, bound=bound, consistent=abs(reproducer - author) <= bound
    )
