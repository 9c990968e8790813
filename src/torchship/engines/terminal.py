"""The caller's terminal while a program in a container has it."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

_DEFAULT = (24, 80)


class Terminal(Struct, frozen=True):
    """The terminal behind a descriptor, usually standard input.

    A descriptor that is no terminal gives the program one of 24 rows and 80 columns all the
    same, which is how a script runs something that insists on a terminal.
    """

    descriptor: int

    def size(self) -> tuple[int, int]:
        """Return rows and columns."""
        try:
            found = os.get_terminal_size(self.descriptor)
        except OSError:
            return _DEFAULT
        return (found.lines, found.columns) if found.lines and found.columns else _DEFAULT

    @contextmanager
    def attached(self, master: int) -> Iterator[None]:
        """Pass every key through to ``master`` and follow changes of size; restore on leaving."""
        if not os.isatty(self.descriptor):
            yield
            return
        before = termios.tcgetattr(self.descriptor)
        follows = threading.current_thread() is threading.main_thread()
        former = signal.getsignal(signal.SIGWINCH)

        def resize(*_: object) -> None:
            rows, columns = self.size()
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

        try:
            tty.setraw(self.descriptor, termios.TCSADRAIN)
            if follows:
                signal.signal(signal.SIGWINCH, resize)
            resize()  # it may have changed since the program's terminal was made
            yield
        finally:
            if follows:
                signal.signal(signal.SIGWINCH, former)
            termios.tcsetattr(self.descriptor, termios.TCSADRAIN, before)
