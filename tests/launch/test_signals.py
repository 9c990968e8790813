"""Signals while a cluster holds a job of ours."""

import os
import signal

import pytest

from torchship.launch.signals import interrupting, undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_ends_torchship_is_an_interruption(number):
    """Inside, the job can be ended; afterwards all is as it was."""
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interrupting():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_who_ignores_hangups_keeps_to_that():
    """A launch under nohup survives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupting():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_breaks_off_the_end_of_a_job(number):
    """A second Ctrl-C does not leave a job behind; that it came is not forgotten."""
    done = []
    with pytest.raises(KeyboardInterrupt), interrupting(), undisturbed():
        os.kill(os.getpid(), number)
        done.append("deleted")
    assert done == ["deleted"]


def test_without_a_signal_the_end_of_a_job_is_not_the_end_of_all():
    """What was heeded before is heeded again, and no sooner."""
    with interrupting(), undisturbed():
        pass
    with pytest.raises(KeyboardInterrupt), interrupting():
        with undisturbed():
            pass
        os.kill(os.getpid(), signal.SIGTERM)


def test_what_was_ignored_stays_ignored_in_the_end_of_a_job():
    """A hangup under nohup is not taken for Ctrl-C, whenever it comes."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupting(), undisturbed():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
