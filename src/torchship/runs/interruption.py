"""Ctrl-C while an engine runs: of several runs, it ends them all.

An engine passes signals on to the program and gives its exit status: for a run by itself, the
program's own end is the answer. Here what it gives after Ctrl-C is no result of it.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PAUSE = 0.5
"""Seconds in which a program may end by itself, before the engine is told again to end it."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `KeyboardInterrupt` where Ctrl-C came inside, whatever came of it there.

    Until the inside ends, Ctrl-C is repeated: a container that is only starting loses the first
    one, and engines kill at the second.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or not callable(signal.getsignal(signal.SIGINT)):
        yield  # others decide on signals, or the caller ignores them
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    watch = _Watch(heard, threading.get_ident())
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    watch.start()
    try:
        yield
    finally:
        watch.over = True  # first of all: Ctrl-C may come again before this block is through
        signal.set_wakeup_fd(before)
        os.close(told)
        watch.join()
        os.close(heard)
        if watch.interrupted:
            raise KeyboardInterrupt


class _Watch(threading.Thread):
    """Hears of signals by their numbers, whoever handles them."""

    def __init__(self, heard: int, thread: int) -> None:
        super().__init__(name="interruption", daemon=True)
        self._heard = heard
        self._thread = thread
        self.interrupted = False
        self.over = False
        """Nothing is repeated any more: whoever handles Ctrl-C now is not an engine."""

    def run(self) -> None:
        while True:
            pause = _PAUSE if self.interrupted else None
            if not select.select([self._heard], [], [], pause)[0]:
                if self.over:
                    return
                signal.pthread_kill(self._thread, signal.SIGINT)
                continue
            numbers = os.read(self._heard, 4096)
            if not numbers:
                return
            self.interrupted = self.interrupted or signal.SIGINT in numbers
