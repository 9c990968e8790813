"""Several transfers at once."""

import threading
import time

import pytest

from torchship.oci.parallel import Stopped, each


def test_results_come_in_the_order_of_the_items():
    """Whoever is done first, the first item's result is first."""

    def work(item, beat):
        time.sleep(0.01 * (3 - item))
        return item * 10

    assert each([0, 1, 2, 3], work) == [0, 10, 20, 30]
    assert each([], work) == []


def test_they_run_at_the_same_time():
    """As many as there are workers are under way at once."""
    barrier = threading.Barrier(3, timeout=5)
    each([1, 2, 3], lambda item, beat: barrier.wait(), workers=3)


def test_the_first_error_stops_the_others():
    """The error is raised at once; the others end at their next beat, and no more begin."""
    ended, begun = [], []

    def work(item, beat):
        begun.append(item)
        if item == 0:
            time.sleep(0.05)
            raise ValueError("the first")
        try:
            while True:
                beat()
                time.sleep(0.005)
        except Stopped:
            ended.append(item)
            raise

    with pytest.raises(ValueError, match="the first"):
        each(range(10), work, workers=3)
    assert sorted(ended) == [1, 2]
    assert len(begun) == 3
