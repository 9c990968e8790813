"""Signals that reach us and are meant for a program elsewhere: heard while it runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What the program in a container is sent when we are: each of them may end it."""

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def heard(handle: Handler, numbers: Collection[signal.Signals] = FORWARDED) -> Iterator[None]:
    """Let ``handle`` take these signals inside, and those who had them take them again after.

    What the caller ignores stays ignored: nohup, and a shell's background jobs. Python delivers
    signals to the main thread alone, so that in another one nothing changes: its owner decides.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = [(number, signal.signal(number, handle)) for number in taken]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def held(numbers: Collection[signal.Signals]) -> Iterator[None]:
    """Let none of these signals break off what is inside.

    One that came meanwhile counts when that is done: then `KeyboardInterrupt` is raised.
    """
    came = []

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (their signature)
        came.append(number)

    with heard(note, numbers):
        yield
    if came:
        raise KeyboardInterrupt
