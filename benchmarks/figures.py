"""A figure: what was measured, in every round, on one side or on two; and how it is shown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

COLUMNS = ("what", "torchship", "against", "the other side", "outcome", "aim")


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """The values of one quantity, one a round. ``unit`` is s, MB (10^6 bytes), ms or ``times``."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """Return the middle value."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        text = f"{_short(self.median)} {self.unit}"
        if len(self.values) > 1:
            text += f" ({_short(min(self.values))} to {_short(max(self.values))})"
        return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Aim:
    """What a figure has to reach, and whether it did."""

    text: str
    reached: bool

    def __str__(self) -> str:
        return f"{self.text}: {'reached' if self.reached else '**missed**'}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One row of the table. ``theirs`` are the other side's values, round by round as ``mine``.

    ``outcome`` is what the two come to, `ratio` or `added`. ``verdict`` stands where the figure
    is an answer rather than a number.
    """

    what: str
    mine: Spread | None = None
    against: str = ""
    theirs: Spread | None = None
    outcome: Spread | None = None
    verdict: str = ""
    aim: Aim | None = None

    def row(self) -> str:
        """Return the row in Markdown."""
        cells = (
            self.what,
            self.verdict or self.mine or "",
            self.against,
            self.theirs or "",
            self.outcome or "",
            self.aim or "",
        )
        return "| " + " | ".join(map(str, cells)) + " |"

    def as_json(self) -> dict[str, object]:
        """Return every value, unrounded."""
        return {
            "what": self.what,
            "torchship": _values(self.mine),
            "against": self.against,
            "theirs": _values(self.theirs),
            "outcome": _values(self.outcome),
            "verdict": self.verdict,
            "aim": self.aim.text if self.aim else None,
            "reached": self.aim.reached if self.aim else None,
        }


def ratio(mine: Spread, theirs: Spread) -> Spread:
    """Return how many times as much as this side the other took, round by round."""
    pairs = zip(mine.values, theirs.values, strict=True)
    return Spread(values=tuple(b / a for a, b in pairs), unit="times")


def added(mine: Spread, theirs: Spread) -> Spread:
    """Return how much more than the other this side took, round by round."""
    pairs = zip(mine.values, theirs.values, strict=True)
    return Spread(values=tuple(a - b for a, b in pairs), unit=mine.unit)


def below(limit: float, spread: Spread) -> Aim:
    """Aim at a median below a limit."""
    return Aim(text=f"< {limit:g} {spread.unit}", reached=spread.median < limit)


def at_least(limit: float, spread: Spread) -> Aim:
    """Aim at a median of at least a limit."""
    return Aim(text=f"≥ {limit:g} {spread.unit}", reached=spread.median >= limit)


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a table in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- | ---: | --- | ---: | ---: | --- |"]
    return "\n".join(lines + [figure.row() for figure in figures])


def _values(spread: Spread | None) -> dict[str, object] | None:
    if spread is None:
        return None
    return {"unit": spread.unit, "median": spread.median, "values": list(spread.values)}


def _short(value: float) -> str:
    """Write three digits, which is more than any of these figures is worth."""
    return (
        f"{value:.0f}"
        if abs(value) >= 100
        else f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2f}"
    )
