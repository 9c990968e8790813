"""The figure of one claim: where its runs, their means and the tolerance lie, in percent.

Templates draw it. However many runs a record has, some are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torchship.runs.judgement import Judgement, Level
from torchship.runs.record import Claim, Run
from torchship.runs.report.axis import Axis, Tick

MOST_POINTS = 200
"""Dots of one side in the figure of a claim."""

_DOT = 1.5  # percent: about as wide as a dot
_ASIDE = (0.0, -9.0, 9.0, -4.5, 4.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of an axis, in percent."""

    start: float
    end: float

    @property
    def width(self) -> float:
        """How long it is."""
        return round(self.end - self.start, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A run. ``aside`` is how far it is moved across the axis, in pixels, off one at its place."""

    at: float
    aside: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """One side's runs of a metric: each of them, and their mean where they have one."""

    dots: tuple[Dot, ...]
    mean: float | None = None
    interval: Span | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimFigure:
    """A claim's runs on one axis, with the ``band`` in which a reproduction's mean may lie.

    ``chance`` is what takes its place where no spread is known, for an accuracy: the binomial
    bound around the author's, which is no tolerance.
    """

    ticks: tuple[Tick, ...]
    author: Points
    here: Points | None = None
    band: Span | None = None
    chance: Span | None = None


def claim_figure(
    claim: Claim,
    author: Sequence[Run],
    here: Sequence[Run],
    judgement: Judgement | None = None,
) -> ClaimFigure:
    """Lay out one claim: every run, the means, the tolerance, and the test's interval.

    The interval is the mean here, plus and minus t(.95) standard errors: it lies within the
    band exactly where the claim is within tolerance.
    """
    theirs, ours = _values(claim, author), _values(claim, here)
    center = claim.mean
    tolerance, near = claim.tolerance, judgement.near if judgement else None
    mean = judgement.reproducer if judgement else None
    band = None if tolerance is None else (center - tolerance, center + tolerance)
    # of equal bits nothing is left to chance
    tested = judgement is not None and judgement.level is not Level.BIT_IDENTICAL
    interval = (
        (mean - near, mean + near) if tested and near is not None and mean is not None else None
    )
    bound = judgement.binomial.bound if judgement and judgement.binomial else None
    chance = None if bound is None else (center - bound, center + bound)
    ends = (*(band or ()), *(interval or ()), *(chance or ()))
    axis = Axis.over((center, *theirs, *ours, *ends))
    return ClaimFigure(
        ticks=axis.ticks(6),
        author=Points(dots=_dots(axis, theirs), mean=axis.at(center)),
        here=Points(
            dots=_dots(axis, ours),
            mean=None if mean is None else axis.at(mean),
            interval=_span(axis, interval),
        )
        if here
        else None,
        band=_span(axis, band),
        chance=_span(axis, chance),
    )


def _values(claim: Claim, runs: Sequence[Run]) -> tuple[float, ...]:
    return tuple(run.metrics[claim.name] for run in runs if claim.name in run.metrics)


def _dots(axis: Axis, values: Sequence[float]) -> tuple[Dot, ...]:
    """Place the runs; those that would hide each other lie beside each other."""
    found: list[Dot] = []
    for value in sorted(values[:MOST_POINTS]):
        at = axis.at(value)
        taken = {dot.aside for dot in found if at - dot.at < _DOT}
        aside = next((free for free in _ASIDE if free not in taken), 0.0)
        found.append(Dot(at=at, aside=aside))
    return tuple(found)


def _span(axis: Axis, ends: tuple[float, float] | None) -> Span | None:
    return None if ends is None else Span(start=axis.at(ends[0]), end=axis.at(ends[1]))
