"""Ctrl-C while something handles signals by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from torchship.runs.interruption import interruptible


@pytest.fixture
def heard():
    """Give a list that a handler of SIGINT, such as an engine's, fills."""
    found: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: found.append(number))
    yield found
    signal.signal(signal.SIGINT, before)


def test_what_was_interrupted_is_so_whatever_came_of_it(heard):
    """The program ended well: it is no result."""
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGINT)
    assert heard


def test_an_error_after_ctrl_c_is_no_news(heard):
    """A container that was interrupted while it started could not start."""
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError


def test_ctrl_c_is_repeated_until_it_is_heeded(heard):
    """A container that lost the first one hears the next."""
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGINT)
        ends = time.monotonic() + 10
        while len(heard) < 3:
            assert time.monotonic() < ends
            time.sleep(0.01)


def test_without_ctrl_c_nothing_changes(heard):
    """Neither the answer, nor errors, nor what wakes up whom, nor the threads."""
    threads = threading.active_count()
    with pytest.raises(ValueError), interruptible():
        raise ValueError
    with interruptible():
        pass
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads


def test_who_ignores_ctrl_c_goes_on_ignoring_it():
    """As under nohup."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


HEEDLESS = """
import os, signal, sys, time
from torchship.runs import interruption

interruption._PAUSE = 0.001
at_once = signal.set_wakeup_fd

def slowly(*arguments, **named):
    time.sleep(0.05 * (arguments == (-1,)))  # a machine with much to do, at the block's end
    return at_once(*arguments, **named)

signal.set_wakeup_fd = slowly
try:
    with interruption.interruptible():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as Python's own end does
    time.sleep(0.2)
    sys.exit(130)
"""


def test_nothing_is_repeated_once_it_was_heeded():
    """However the end of the block and another Ctrl-C meet: the exit status is ours."""
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", HEEDLESS], check=False)
        assert done.returncode == 130
