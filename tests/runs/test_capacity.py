"""Records that are made to fit, and what is said where they cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.runs.records import accuracies, record, run

from torchship.digest import Digest
from torchship.errors import RecordError
from torchship.runs import capacity, statement, typed
from torchship.runs.record import Curve

DIGEST = Digest.of(b"")


@pytest.fixture
def small(monkeypatch):
    """Let a record have 100 kB at most."""
    for module in (capacity, statement):
        monkeypatch.setattr(module, "LARGEST", 100_000)


def curve(count: int) -> Curve:
    """Return a curve of so many steps."""
    steps = tuple({"step": float(place), "loss": place / 7} for place in range(count))
    return Curve(source="metrics.jsonl", count=count, steps=steps)


def logged(runs: int, steps: int):
    """Return a record of so many runs that logged so many steps."""
    found = accuracies(*(0.9 + place / 1e4 for place in range(runs)))
    return replace(found, runs=tuple(replace(each, curve=curve(steps)) for each in found.runs))


def wrote(count: int):
    """Return a record of a run that left so many files."""
    outputs = {f"samples/{place}.png": DIGEST for place in range(count)}
    return record(replace(run(1, test_accuracy=0.5), outputs=outputs))


def test_a_record_that_fits_stays_as_it_is(small):
    """Nothing is lost where there is room."""
    found = logged(2, 100)
    assert capacity.fitted(found) is found


def test_curves_that_are_too_long_together_are_thinned(small):
    """A record that was hours in the making can be read."""
    found = logged(10, 1000)
    assert len(statement.encode(found)) > statement.LARGEST
    made = capacity.fitted(found)
    assert statement.parse(statement.encode(made), "it") == made
    assert [each.metrics for each in made.runs] == [each.metrics for each in found.runs]
    for each in made.runs:
        assert 50 < len(each.curve.steps) < 1000
        assert each.curve.steps[-1] == {"step": 999.0, "loss": 999 / 7}


def test_what_no_record_can_hold_is_written_nowhere(small):
    """Too many bytes, whatever becomes of the curves."""
    with pytest.raises(RecordError, match=r"would have .* more than one can \(100 kB\)") as caught:
        capacity.fitted(wrote(2000))
    assert "/output" in caught.value.hint


def test_what_no_reader_would_take_is_written_nowhere(monkeypatch):
    """Everything that `parse` refuses, with the path to it."""
    monkeypatch.setattr(typed, "MOST", 1000)
    with pytest.raises(RecordError, match=r"runs\[0\]\.outputs has 1001 entries, more than 1000"):
        capacity.fitted(wrote(1001))
    many = {f"class_{place}": 0.5 for place in range(1001)}
    with pytest.raises(RecordError, match=r"predicate\.claims has 1001 entries") as caught:
        capacity.fitted(record(run(1, **many), metrics=()))
    assert "declare the metrics" in caught.value.hint


def test_the_first_run_tells_how_large_the_others_make_it(small):
    """A few runs like it fit, and hundreds do not; curves never stand in the way."""
    capacity.check(logged(1, 1000), 20)
    capacity.check(wrote(100), 5)
    with pytest.raises(
        RecordError, match=r"50 runs like the first would have .* more than"
    ) as caught:
        capacity.check(wrote(100), 50)
    assert "--runs" in caught.value.hint
