"""How long work tells what it is doing, without knowing who watches.

The command line draws a live display on a terminal and plain lines in a log; tests and
library users pass `SILENT`.
"""

from __future__ import annotations

from typing import Protocol


class Task(Protocol):
    """One piece of work that is under way."""

    def advance(self, amount: int) -> None:
        """Say that ``amount`` more units (bytes, unless the task says otherwise) are done."""

    def finish(self) -> None:
        """Say that the work is done; a task that fails is simply left."""


class Progress(Protocol):
    """Where work reports."""

    def task(self, label: str, total: int | None = None) -> Task:
        """Begin a piece of work; ``total`` in bytes where it is known.

        What a terminal would obey in the label is not shown, nor in what is said: both may be
        a stranger's words.
        """

    def say(self, line: str) -> None:
        """Tell the user one line: what was found, what was decided. It stays one line."""


class _SilentTask:
    def advance(self, amount: int) -> None:
        pass

    def finish(self) -> None:
        pass


class _Silent:
    def task(self, label: str, total: int | None = None) -> Task:  # noqa: ARG002 (the seam's shape)
        return _SilentTask()

    def say(self, line: str) -> None:
        pass


SILENT: Progress = _Silent()
