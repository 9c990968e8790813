"""Ctrl-C while an engine runs: of several runs, it ends them all.

An engine passes signals on to the program and gives its exit status: for a run by itself, the
program's own end is the answer. Here what it gives after Ctrl-C is no result of it.
"""

from __future__ import annotations

import signal
import socket
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
    heard, told = socket.socketpair()
    with heard, told:
        told.setblocking(False)
        watch = _Watch(heard, threading.get_ident())
        before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        watch.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            told.shutdown(socket.SHUT_WR)
            watch.join()
            if watch.interrupted:
                raise KeyboardInterrupt


class _Watch(threading.Thread):
    """Hears of signals by their numbers, whoever handles them."""

    def __init__(self, heard: socket.socket, thread: int) -> None:
        super().__init__(name="interruption", daemon=True)
        self._heard = heard
        self._thread = thread
        self.interrupted = False

    def run(self) -> None:
        while True:
            try:
                numbers = self._heard.recv(4096)
            except TimeoutError:
                signal.pthread_kill(self._thread, signal.SIGINT)
                continue
            if not numbers:
                return
            if signal.SIGINT in numbers:
                self.interrupted = True
                self._heard.settimeout(_PAUSE)
