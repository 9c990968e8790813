"""Signals that are meant for a program elsewhere."""

from __future__ import annotations

import os
import signal
import threading

from torchship.engines.signals import FORWARDED, heard


def handlers():
    """Return who takes the signals now."""
    return {number: signal.getsignal(number) for number in FORWARDED}


def test_signals_are_heard_inside_and_no_longer_after():
    """Whoever had them before has them again."""
    before, came = handlers(), []
    with heard(lambda number, _: came.append(number)):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert came == [signal.SIGTERM, signal.SIGINT]
    assert handlers() == before


def test_what_the_caller_ignores_stays_ignored():
    """Under nohup, a terminal that is closed ends nothing."""
    former, came = signal.signal(signal.SIGHUP, signal.SIG_IGN), []
    try:
        with heard(lambda number, _: came.append(number)):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)
    assert came == []


def test_another_thread_hears_nothing():
    """Python delivers signals to the main thread, and its owner decides there."""
    before, inside = handlers(), []

    def work():
        with heard(lambda *_: None):
            inside.append(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
