"""Two halves of one command at once: one in a process of its own, the other here.

To import what speaks to a registry takes as long as to build an edit, and its first answers take
their time, too. Where there is one processor for both, one comes after the other.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from torchship.cli import ending
from torchship.errors import TorchshipError

_Other = TypeVar("_Other")

_PATIENCE = 1.0
"""Seconds after which the worker is told of a Ctrl-C that no terminal sent to both."""


def beside(work: Callable[[], str], meanwhile: Callable[[], _Other]) -> tuple[str, _Other]:
    """Do ``work`` in a process forked for it, ``meanwhile`` in this one; return what both return.

    Where ``work`` fails it has said why, and this process ends with its exit status. An error of
    ``meanwhile`` is raised when ``work`` is done. No thread may be running yet.
    """
    if len(os.sched_getaffinity(0)) == 1:
        return work(), meanwhile()
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(reading)
        _answer(work, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, encoding="utf-8") as answer:
            try:
                other = meanwhile()
            except TorchshipError as fault:
                _require(worker)
                raise fault from None
            line = answer.read()
        _require(worker)
    except KeyboardInterrupt:
        if _interrupted(worker) == ending.INTERRUPTED:
            sys.exit(ending.INTERRUPTED)  # which it has said
        raise
    return line, other


def _answer(work: Callable[[], str], writing: int) -> None:
    """Be the worker: never return, for what called belongs to the other process."""

    def answer() -> None:
        with os.fdopen(writing, "w", encoding="utf-8") as pipe:
            pipe.write(work())

    code = 1
    try:
        code = ending.status(answer)
    except BaseException:  # noqa: BLE001 (told here: nothing of the other process may end by it)
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _require(worker: int) -> None:
    """Wait for the worker, and end as it did unless all is well."""
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    if code < 0:
        name = signal.Signals(-code).name
        raise TorchshipError(f"the build was killed ({name})", hint="build again: it goes on")
    if code:
        sys.exit(code)


def _interrupted(worker: int) -> int:
    """Return how the worker ended after a Ctrl-C, which may have gone to this process alone."""
    until = time.monotonic() + _PATIENCE
    try:
        while (ended := os.waitpid(worker, os.WNOHANG))[0] == 0 and time.monotonic() < until:
            time.sleep(0.02)
        if ended[0] == 0:
            os.kill(worker, signal.SIGINT)
            ended = os.waitpid(worker, 0)
    except ChildProcessError:
        return 0  # it was done before
    return os.waitstatus_to_exitcode(ended[1])
