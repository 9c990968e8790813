"""Signals while a cluster holds a job of ours: they end it, and do not keep us from ending it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from torchship.engines.signals import held

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupting() -> Iterator[None]:
    """Let SIGTERM and SIGHUP do inside what Ctrl-C does: raise `KeyboardInterrupt`."""
    if threading.current_thread() is not threading.main_thread():
        yield  # others decide on signals
        return

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (their signature)
        raise KeyboardInterrupt

    # One that the caller ignores, as nohup does, stays ignored
    taken = [each for each in _ENDING if signal.getsignal(each) == signal.SIG_DFL]
    before = [(number, signal.signal(number, interrupt)) for number in taken]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def undisturbed() -> AbstractContextManager[None]:
    """Let none of them, nor Ctrl-C, break off what is inside: a job is being deleted.

    One that came meanwhile counts when that is done: then `KeyboardInterrupt` is raised.
    """
    return held((signal.SIGINT, *_ENDING))
