"""What a run logged step by step: ``metrics.jsonl`` of its output, or labelled numbers on stdout.

Programs and what they write are strangers': lines that say nothing clear are passed over, long
ones are cut, and no more is kept than a record can carry.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torchship.runs.record import Curve

MOST_STEPS = 2000
"""Steps of one run in a record; of a longer log every second, fourth, ... is kept."""

_MOST_TOGETHER = 20_000  # steps of all runs of a record; with twenty names, some 16 MB of it
_FEWEST = 20

FILE = "metrics.jsonl"
STDOUT = "stdout"
LINE = "line"
"""What a step of stdout is counted by."""

COUNTERS = ("step", "global_step", "iteration", "iter", "batch", "epoch", LINE)
"""Names that count steps, the finest first."""

_MOST_NAMES = 20
_LONGEST_LINE = 1 << 16
_TIMES = re.compile(r"time|second|elapsed|duration|\bsec\b|speed|/s\b|\beta\b|throughput", re.I)

# A label, a colon, an equals sign or nothing but blanks, a number: `Train Epoch: 1`, `lr=0.5`
_LABELLED = re.compile(
    r"(?P<label>[A-Za-z][A-Za-z0-9_ ./-]{0,40}?)\s*[:=]\s*"
    r"(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.:])"
)


def share(runs: int) -> int:
    """Return how many steps each of so many runs keeps, for one record to hold them all."""
    return max(_FEWEST, min(MOST_STEPS, _MOST_TOGETHER // runs))


def read(*, output: Path, log: Path, most: int = MOST_STEPS) -> Curve | None:
    """Return what was logged; None where nothing was. Names that tell times are left out.

    ``most`` is how many steps are kept, besides the last one.
    """
    file = output / FILE
    if file.is_file() and not file.is_symlink():
        found = _kept(_objects(file), FILE, most)
        if found is not None:
            return found
    return _kept(_lines(log), STDOUT, most) if log.is_file() else None


def step_name(curve: Curve) -> str | None:
    """Return the name that counts a curve's steps, such as ``epoch``; None: their order does."""
    first = curve.steps[0] if curve.steps else {}
    return next((name for name in COUNTERS if name in first), None)


def kept(count: int, every: int) -> int:
    """Return how many steps of ``count`` a curve keeps; -1 where there can be no such curve."""
    if count < 1 or every < 1:
        return -1
    return (count - 1) // every + 1 + ((count - 1) % every > 0)


def places(curve: Curve) -> tuple[int, ...]:
    """Return the places, from 0, that the kept steps have in the log."""
    grid = list(range(0, curve.count, curve.every))
    return (*grid, curve.count - 1) if (curve.count - 1) % curve.every else tuple(grid)


def thinned(curve: Curve) -> Curve:
    """Return a curve with every second of its steps, and the last; of two steps, the same."""
    return curve if len(curve.steps) <= 2 else _every(curve, 2 * curve.every)


def thinnest(curve: Curve) -> Curve:
    """Return a curve with its first step and its last."""
    return _every(curve, max(curve.every, curve.count))


def _every(curve: Curve, every: int) -> Curve:
    steps = dict(zip(places(curve), curve.steps, strict=True))
    fewer = replace(curve, every=every)
    return replace(fewer, steps=tuple(steps[place] for place in places(fewer)))


def _kept(steps: Iterator[Mapping[str, float]], source: str, most: int) -> Curve | None:
    """Keep every ``every``-th step and the last, doubling ``every`` whenever there are too many.

    So two logs of one length keep the same steps, whatever is in them; and where one keeps fewer,
    they are some of the other's.
    """
    found: list[Mapping[str, float]] = []
    every, count, last = 1, 0, None
    for step in steps:
        if count % every == 0:
            found.append(step)
            if len(found) > most:
                found, every = found[::2], every * 2
        last, count = step, count + 1
    if last is None:
        return None
    if (count - 1) % every:
        found.append(last)
    return Curve(source=source, count=count, steps=tuple(found), every=every)


def _objects(file: Path) -> Iterator[Mapping[str, float]]:
    for line in _text_lines(file):
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            numbers = {
                name: float(value)
                for name, value in document.items()
                if isinstance(value, int | float)
                and not isinstance(value, bool)
                and abs(value) < 1e300
                and _is_kept(name)
            }
            if numbers:
                yield dict(list(numbers.items())[:_MOST_NAMES])


def _lines(log: Path) -> Iterator[Mapping[str, float]]:
    for place, line in enumerate(_text_lines(log), start=1):
        numbers = {
            match["label"].strip(): float(match["number"])
            for match in _LABELLED.finditer(line)
            if _is_kept(match["label"].strip()) and math.isfinite(float(match["number"]))
        }
        if numbers:
            yield {LINE: float(place), **dict(list(numbers.items())[:_MOST_NAMES])}


def tells_time(name: str) -> bool:
    """Tell whether a number of that name says how long something took, which no run gives twice."""
    return _TIMES.search(name) is not None


def _is_kept(name: str) -> bool:
    return 0 < len(name) <= 100 and name.isprintable() and not tells_time(name)


def _text_lines(file: Path) -> Iterator[str]:
    with file.open("rb") as stream:
        while line := stream.readline(_LONGEST_LINE):
            yield line.decode("utf-8", "replace")
