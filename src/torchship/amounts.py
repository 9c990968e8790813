"""How many and how large, in words: the one place that knows plurals and units."""

from __future__ import annotations

from collections.abc import Sequence

_UNITS = ("B", "kB", "MB", "GB", "TB")


def counted(count: int, noun: str) -> str:
    """Say how many there are of something: ``1 wheel``, ``2 wheels``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(noun: str, names: Sequence[object]) -> str:
    """Name one or more of something: ``seed 1``, ``seeds 1, 2, 3``."""
    return f"{noun}{'s' if len(names) > 1 else ''} {', '.join(map(str, names))}"


def size(count: float) -> str:
    """Write a number of bytes in powers of 1000: ``192 MB``."""
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError  # the loop returns at its last unit
