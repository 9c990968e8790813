"""What the test of one claim promises."""

from __future__ import annotations

import math
import random

import pytest
from tests.runs.records import NOW

from torchship.runs.claims import claim, tolerance
from torchship.runs.judgement import Level, judge
from torchship.runs.record import Run


@pytest.mark.parametrize(
    ("n", "m", "shift", "trials", "bounds"),
    [
        (5, 1, 0.0, 20_000, {"within": (0.88, 0.92), "not": (0.0, 0.015)}),
        (5, 3, 0.0, 4_000, {"within": (0.90, 1.0), "not": (0.0, 0.015)}),
        (3, 1, 0.0, 4_000, {"within": (0.86, 0.94), "not": (0.0, 0.015)}),
        (5, 1, 1.0, 20_000, {"within": (0.0, 0.07)}),
        (10, 1, 1.0, 4_000, {"within": (0.0, 0.07)}),
        (5, 1, 4.0, 4_000, {"within": (0.0, 0.001), "not": (0.85, 1.0)}),
    ],
)
def test_the_rates_of_simulated_reproductions(n, m, shift, trials, bounds):
    """Unchanged runs hardly ever fail; a shift of a whole tolerance hardly ever passes."""
    draw = random.Random(20261123)
    counts = {"within": 0, "not": 0}
    names = {Level.WITHIN_TOLERANCE: "within", Level.NOT_REPRODUCED: "not"}
    for _ in range(trials):
        author = [draw.gauss(0, 1) for _ in range(n)]
        center = sum(author) / n
        s = math.sqrt(sum((x - center) ** 2 for x in author) / (n - 1))
        ours = [draw.gauss(0, 1) + shift * tolerance(s, n) for _ in range(m)]
        found = names.get(_judged(author, ours))
        if found:
            counts[found] += 1
    for name, (low, high) in bounds.items():
        assert low <= counts[name] / trials <= high, (name, counts[name] / trials)


def _judged(author, reproducer) -> Level:
    theirs, ours = _plain(author), _plain(reproducer)
    return judge(claim("x", theirs, None), theirs, ours).level


def _plain(values) -> list[Run]:
    return [Run(started=NOW, seconds=1, status=0, metrics={"x": value}) for value in values]
