"""What the user watches: a live display on a terminal, plain lines in a log. All on stderr."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Protocol

from torchship.amounts import size
from torchship.progress import SILENT, Progress, Task

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


def clean(text: str, *, keep: str = "") -> str:
    """Leave nothing in a stranger's text that a terminal would obey, but what is in ``keep``."""
    return "".join(
        letter if letter.isprintable() or letter in keep else "\ufffd" for letter in text
    )


_BLANKS = "\u00a0\u3000"
"""Blanks that are not the usual one, and do nothing to a terminal."""


def one_line(text: str) -> str:
    """Make one line of a text, which may be a stranger's, or hold what a program explained.

    So nobody can print a second line that looks like one of ours.
    """
    text = text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
    return clean(text, keep=_BLANKS)


class Display(Progress, Protocol):
    """A progress sink that has to be opened and closed."""

    def __enter__(self) -> Display:
        """Take the screen."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back."""


def display() -> Display:
    """Return what fits standard error: live where it is a terminal, lines where it is not."""
    return _Live() if sys.stderr.isatty() else _Lines()


class Aside:
    """Lines of those who have no display: above the bars of the one that is up, if any."""

    def task(self, label: str, total: int | None = None) -> Task:
        """Show nothing of it."""
        return SILENT.task(label, total)

    def say(self, line: str) -> None:
        """Write the line where it garbles no bar."""
        (_Live.up or _Lines()).say(line)


class _LineTask:
    """Tells of itself once, when it is done, and only if it took long enough to wonder."""

    def __init__(self, lines: _Lines, label: str, total: int | None) -> None:
        self._lines = lines
        self._label = label
        self._total = total
        self._done = 0
        self._began = time.monotonic()

    def advance(self, amount: int) -> None:
        self._done += amount

    def finish(self) -> None:
        seconds = time.monotonic() - self._began
        amount = self._total or self._done
        if seconds >= 1:
            told = f" {size(amount)}" if amount else ""
            self._lines.say(f"{self._label}{told} in {seconds:.1f} s")


class _Lines:
    """Plain lines, for a log."""

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def task(self, label: str, total: int | None = None) -> Task:
        return _LineTask(self, label, total)

    def say(self, line: str) -> None:
        _write(line)


class _LiveTask:
    """One bar, gone when it is done."""

    def __init__(self, progress: RichProgress, handle: TaskID) -> None:
        self._progress = progress
        self._handle = handle

    def advance(self, amount: int) -> None:
        self._progress.advance(self._handle, amount)

    def finish(self) -> None:
        self._progress.remove_task(self._handle)


class _Live:
    """Bars with bytes, speed and time left. rich is imported when the first bar is needed."""

    up: ClassVar[_Live | None] = None
    """The one that has the screen."""

    def __init__(self) -> None:
        self._progress: RichProgress | None = None
        self._beginning = threading.Lock()  # several threads may begin the first bar at once

    def __enter__(self) -> _Live:
        _Live.up = self
        return self

    def __exit__(self, *_: object) -> None:
        _Live.up = None
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def task(self, label: str, total: int | None = None) -> Task:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TransferSpeedColumn,
        )

        with self._beginning:
            if self._progress is None:
                self._progress = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(bar_width=24),
                    DownloadColumn(),
                    TransferSpeedColumn(),
                    TimeElapsedColumn(),
                    console=Console(stderr=True),
                    transient=True,
                )
                self._progress.start()
        return _LiveTask(
            self._progress, self._progress.add_task(escape(one_line(label)), total=total)
        )

    def say(self, line: str) -> None:
        if self._progress is not None:
            self._progress.console.print(
                one_line(line), markup=False, highlight=False, emoji=False, soft_wrap=True
            )
        else:
            _write(line)


def _write(line: str) -> None:
    sys.stderr.write(one_line(line) + "\n")
    sys.stderr.flush()
