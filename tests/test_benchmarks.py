"""The benchmarks themselves take minutes; that they can be chosen, and are described, does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.figures import Figure, Spread, at_least, ratio, table

ROOT = Path(__file__).parents[1]


def test_every_benchmark_is_described():
    """The README of the benchmarks has a row for each of them."""
    shown = subprocess.run(
        [sys.executable, "-m", "benchmarks", "no-such"], cwd=ROOT, capture_output=True, text=True
    )
    assert shown.returncode == 2
    names = shown.stderr.rpartition("there are ")[2].strip().split(", ")
    described = (ROOT / "benchmarks" / "README.md").read_text()
    assert "cold_build" in names
    assert [name for name in names if f"| `{name}` |" not in described] == []


def test_ratio_is_taken_round_by_round():
    """A figure shows the median and the range of the rounds' own ratios, and the aim."""
    mine = Spread(values=(1.0, 2.0, 4.0), unit="s")
    theirs = Spread(values=(20.0, 20.0, 20.0), unit="s")
    times = ratio(mine, theirs)
    assert times.values == (20.0, 10.0, 5.0)
    figure = Figure(what="x", mine=mine, theirs=theirs, outcome=times, aim=at_least(11, times))
    last = table([figure]).splitlines()[-1]
    assert "10.0 times (5.00 to 20.0)" in last
    assert "≥ 11 times: **missed**" in last
