"""A limit to the processor time of one piece of work."""

import signal
import time

import pytest

from torchship.runs.allowance import UsedUp, allowance


def test_work_that_takes_too_long_is_ended():
    """The block is left in its midst, and what SIGVTALRM did before it does again."""
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(UsedUp), allowance(0.05):
        while True:
            pass
    assert signal.getsignal(signal.SIGVTALRM) is before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_waiting_is_not_work():
    """A machine that is busy with other things ends nothing."""
    with allowance(0.05):
        time.sleep(0.2)
    end = time.process_time() + 0.2
    while time.process_time() < end:  # and nothing ends what comes after the block
        pass
