"""A limit to the processor time of one piece of work: strangers' patterns can take for ever.

Python's `re` looks for signals while it matches, so a timer ends it where no check of ours
could. It is the process's own timer: only the main thread can set it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class UsedUp(Exception):
    """The work has used its processor time, and is not done."""


@contextmanager
def allowance(seconds: float) -> Iterator[None]:
    """Raise `UsedUp` inside the block when it has computed for so many seconds (more than 0).

    Time that others have the processor does not count. Call it in the main thread.
    """

    def end(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signal's signature)
        raise UsedUp

    before = signal.signal(signal.SIGVTALRM, end)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
