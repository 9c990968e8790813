"""An axis of a plot: which values it spans, where they lie on it, and which are labelled.

Places are percentages of the plot's width or height, so that a plot is as wide as the page.
Values are a stranger's: any finite floats.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from torchship.runs.legible import number

_FLATTEST = 1e-7
"""Relative: what differs by less is drawn as one place, for its labels would have ten digits."""

_LOGARITHMIC = 40
"""Positive values that span more than this factor are drawn by their orders of magnitude."""

_GREATEST = 1e300


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A labelled place, in percent from the axis's lower end."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """From ``low`` to ``high``, which differ; ``logarithmic`` ones are of positive values."""

    low: float
    high: float
    logarithmic: bool = False

    @classmethod
    def over(cls, values: Iterable[float], *, margin: float = 0.04) -> Axis:
        """Span some values, with a margin relative to their span on both sides."""
        low, high = _bounds(values)
        room = max((high - low) * margin, max(abs(low), abs(high)) * _FLATTEST / 2)
        if high - low <= max(abs(low), abs(high)) * _FLATTEST:
            room = max(abs(high) * 0.01, 1e-300)
        return cls(low=low - room, high=high + room)

    @classmethod
    def fitting(cls, values: Iterable[float]) -> Axis:
        """Span some values: by orders of magnitude where they are positive and span several."""
        known = [value for value in values if math.isfinite(value)]
        low, high = _bounds(known)
        if low > 0 and high / low > _LOGARITHMIC:
            room = (high / low) ** 0.04 if high / low < _GREATEST else 10.0
            # the margin of a span of hundreds of decades would lie beyond the largest float
            low, high = max(low / room, 1e-320), min(high * room, sys.float_info.max)
            return cls(low=low, high=high, logarithmic=True)
        return cls.over(known, margin=0.06)

    def at(self, value: float) -> float:
        """Return where a value lies, in percent; what is beyond the axis lies at its end."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, value = math.log(self.low), math.log(self.high), math.log(value)
        else:
            low, high = self.low, self.high
        return round(100 * (value - low) / (high - low), 2)

    def ticks(self, most: int = 5) -> tuple[Tick, ...]:
        """Return round values along the axis: two to ``most`` of them, where there are such."""
        values = self._decades(most) if self.logarithmic else self._multiples(most)
        return tuple(Tick(at=self.at(value), label=label) for value, label in values)

    def _multiples(self, most: int) -> list[tuple[float, str]]:
        raw = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(raw)) if raw > 1e-300 else 1e-300
        step = next((power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw), raw)
        first = math.ceil(self.low / step)
        found = [first * step + place * step for place in range(most + 1)]
        return [(value, _label(value, step)) for value in found if value <= self.high]

    def _decades(self, most: int) -> list[tuple[float, str]]:
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        every = max(1, -(-(last - first + 1) // most))
        powers = range(-(-first // every) * every, last + 1, every)
        found = [10.0**power for power in powers]
        if len(found) < 3:  # a decade or two: the twos and fives between them, too
            near = (10.0**power * by for power in range(first - 1, last + 1) for by in (1, 2, 5))
            found = [value for value in near if self.low <= value <= self.high]
        return [(value, number(value, 3)) for value in found[: 2 * most]]


def _bounds(values: Iterable[float]) -> tuple[float, float]:
    known = [min(max(value, -_GREATEST), _GREATEST) for value in values if math.isfinite(value)]
    return (min(known), max(known)) if known else (0.0, 1.0)


def _label(value: float, step: float) -> str:
    if abs(value) < step / 2:
        return "0"
    if abs(value) >= 1e6 or step < 1e-9:
        return number(value, 3 + max(0, math.floor(math.log10(abs(value) / step))))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if step * 10**decimals % 1 > 1e-6:  # 2.5, 0.25
        decimals += 1
    if decimals > 4 and abs(value) < 0.001:
        return number(value, 2 + max(0, math.floor(math.log10(abs(value) / step))))
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
