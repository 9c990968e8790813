"""The curves of a report, a panel for each logged number: what lies where. Templates draw it.

However long a record is, a panel stays small: of many runs some are drawn, of many steps those
at which a line turns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torchship.amounts import counted
from torchship.runs.curve import COUNTERS, places, step_name
from torchship.runs.difference import FirstDifference
from torchship.runs.legible import signed
from torchship.runs.record import Curve, Run
from torchship.runs.report.axis import Axis, Tick

MOST_LINES = 12
"""Curves of one side in a panel."""

MOST_PANELS = 8

_MOST_NAMES = 40  # of which those that stay as they are get no panel

_BUCKETS = 160  # each keeps its lowest and its highest point: no peak is lost
_GRID = 1000.0  # what a line's points are counted in, across and down

Series = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A run's curve as the points of an SVG polyline. ``strong``: of the seed that is compared."""

    side: str
    points: str
    strong: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A place on the horizontal axis, in percent, with what is there."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The curves of one logged number; ``across`` names what counts the steps."""

    name: str
    across: str
    logarithmic: bool
    horizontal: tuple[Tick, ...]
    vertical: tuple[Tick, ...]
    lines: tuple[Line, ...]
    marker: Marker | None = None
    said: str = ""


def panels(
    author: Sequence[Run], here: Sequence[Run], found: FirstDifference | None
) -> tuple[Panel, ...]:
    """Lay out the curves of every logged number, in the order in which it was logged first."""
    sources = [run.curve for run in (*author, *here) if run.curve is not None]
    if not sources:
        return ()
    counter = _counter(sources)
    names = dict.fromkeys(
        name for curve in sources for step in _ends(curve) for name in step if name != counter
    )
    counted_too = {name for name in COUNTERS if name in names and _never_falls(name, sources)}
    chosen = compared_seed(author, here, found)
    start = _start(author, here, found, counter)
    drawn = []
    for name in [each for each in names if each not in counted_too][:_MOST_NAMES]:
        curves = [
            (side, bool(chosen) and run.seed == chosen[0], series)
            for side, runs in (("author", author), ("here", here))
            for run in _first(runs, chosen)
            if (series := _series(run.curve, name, counter))
        ]
        if curves and _moves(series for _, _, series in curves):
            drawn.append(_panel(name, counter, curves, start))
        if len(drawn) == MOST_PANELS:
            break
    return tuple(drawn)


def gap_panel(
    author: Sequence[Run], here: Sequence[Run], found: FirstDifference | None
) -> Panel | None:
    """Lay out how far two runs of one seed are apart, step by step; None: they are not."""
    pair = _pair(author, here, found)
    if pair is None or found is None:
        return None
    counter = _counter(pair)
    one, other = (dict(_series(curve, found.name, counter)) for curve in pair)
    gaps = [(x, abs(one[x] - other[x])) for x in one if x in other and one[x] != other[x]]
    gaps = [(x, gap) for x, gap in gaps if math.isfinite(gap)]
    if len(gaps) < 2:
        return None
    start = _start(author, here, found, counter)
    across = Axis.over(one, margin=0)
    up = Axis.fitting(gap for _, gap in gaps)
    seed = "" if found.seed is None else f" of seed {found.seed}"
    return Panel(
        name=f"{found.name}, difference",
        across=counter or "step",
        logarithmic=up.logarithmic,
        horizontal=across.ticks(4),
        vertical=up.ticks(),
        lines=(Line(side="gap", points=_points(across, up, gaps), strong=True),),
        marker=_marker(across, start),
        said=f"How far the two runs{seed} are apart in {found.name}.",
    )


def _panel(
    name: str,
    counter: str | None,
    curves: Sequence[tuple[str, bool, Series]],
    start: float | None,
) -> Panel:
    across = Axis.over((x for _, _, series in curves for x, _ in series), margin=0)
    up = Axis.fitting(y for _, _, series in curves for _, y in series)
    # the author's strong line lies below the thin one from here: both show where they agree
    order = sorted(curves, key=lambda each: (each[1], each[0] == "here"))
    ends = [series[-1][1] for side, _, series in order if side == "author"]
    last = (
        f" The author's end{'s' if len(ends) == 1 else ''} at {signed(min(ends))}" if ends else ""
    )
    last += f" to {signed(max(ends))}." if len(ends) > 1 else "." if ends else ""
    return Panel(
        name=name,
        across=counter or "step",
        logarithmic=up.logarithmic,
        horizontal=across.ticks(4),
        vertical=up.ticks(),
        lines=tuple(
            Line(side=side, points=_points(across, up, series), strong=strong)
            for side, strong, series in order
        ),
        marker=_marker(across, start),
        said=f"{name} by {counter or 'step'}: {counted(len(curves), 'run')}.{last}",
    )


def _marker(across: Axis, start: float | None) -> Marker | None:
    return None if start is None else Marker(at=across.at(start), label="first difference")


def compared_seed(
    author: Sequence[Run], here: Sequence[Run], found: FirstDifference | None
) -> tuple[int | None, ...]:
    """Return the seed whose runs are drawn over each other, alone in a tuple; none: no such."""
    if found is not None:
        return (found.seed,)
    theirs = {run.seed for run in author}
    return tuple(run.seed for run in here if run.seed in theirs)[:1]


def _first(runs: Sequence[Run], chosen: tuple[int | None, ...]) -> Sequence[Run]:
    """Return those runs that are drawn: the one of the compared seed before the others."""
    return sorted(runs, key=lambda run: run.seed not in chosen)[:MOST_LINES]


def _counter(curves: Sequence[Curve]) -> str | None:
    """Return what counts the steps of all these curves; None where that does not grow."""
    name = step_name(curves[0])
    for curve in curves:
        steps = [step.get(name, math.nan) for step in curve.steps] if name else []
        if name is None or not all(math.isfinite(step) for step in steps):
            return None
        if not all(one < two for one, two in pairwise(steps)):
            return None
    return name


def _never_falls(name: str, curves: Sequence[Curve]) -> bool:
    """Tell whether a number only counts, such as the epoch beside the step."""
    return all(
        one[name] <= two[name]
        for curve in curves
        for one, two in pairwise(step for step in curve.steps if name in step)
    )


def _ends(curve: Curve) -> Iterator[dict[str, float]]:
    for step in (*curve.steps[:3], *curve.steps[-1:]):
        yield dict(step)


def _series(curve: Curve | None, name: str, counter: str | None) -> Series:
    if curve is None:
        return ()
    return [
        (step[counter] if counter else place + 1.0, step[name])
        for place, step in zip(places(curve), curve.steps, strict=True)
        if name in step
    ]


def _moves(every: Iterator[Series]) -> bool:
    """Tell a curve from a setting: something in it changes."""
    return len({y for series in every for _, y in series}) > 1


def _pair(
    author: Sequence[Run], here: Sequence[Run], found: FirstDifference | None
) -> tuple[Curve, Curve] | None:
    if found is None:
        return None
    theirs = next((run.curve for run in author if run.seed == found.seed), None)
    ours = next((run.curve for run in here if run.seed == found.seed), None)
    return (theirs, ours) if theirs and ours else None


def _start(
    author: Sequence[Run],
    here: Sequence[Run],
    found: FirstDifference | None,
    counter: str | None,
) -> float | None:
    """Return where on the horizontal axis the first difference is."""
    pair = _pair(author, here, found)
    if pair is None or found is None:
        return None
    one, other = (dict(_series(curve, found.name, counter)) for curve in pair)
    return next((x for x in sorted({*one, *other}) if one.get(x) != other.get(x)), None)


def _points(across: Axis, up: Axis, series: Series) -> str:
    placed = [
        (round(across.at(x) * _GRID / 100), round((100 - up.at(y)) * _GRID / 100))
        for x, y in _thinned(series)
    ]
    return " ".join(f"{x},{y}" for x, y in (placed * 2 if len(placed) == 1 else placed))


def _thinned(series: Series) -> Series:
    if len(series) <= 2 * _BUCKETS:
        return series
    found = []
    for bucket in range(_BUCKETS):
        part = series[len(series) * bucket // _BUCKETS : len(series) * (bucket + 1) // _BUCKETS]
        ends = {min(part, key=lambda each: each[1]), max(part, key=lambda each: each[1])}
        found.extend(sorted(ends))
    return [series[0], *found, series[-1]]
