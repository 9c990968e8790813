"""Measuring: a command's seconds, and several sides that take turns."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_TOLD = 1500  # characters of what a failed command printed

Side = Callable[[], float]
"""Does one side's work once; returns its seconds."""

_STARTED = time.monotonic()


class LeftOut(Exception):
    """A side that cannot be measured on this machine; the message says why."""


class Failed(Exception):
    """A command that should have worked did not; the message has the end of what it printed."""


def say(line: str) -> None:
    """Tell how far the run is, on standard error."""
    print(f"[{time.monotonic() - _STARTED:5.0f} s] {line}", file=sys.stderr, flush=True)


def output(
    command: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
    *,
    folder: Path | None = None,
) -> str:
    """Run a command and return its standard output. Raises `Failed`."""
    done = subprocess.run(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        shown = " ".join(map(str, command))
        raise Failed(f"{shown} failed: {(done.stderr or done.stdout)[-_TOLD:].strip()}")
    return done.stdout


def seconds(
    command: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
    *,
    folder: Path | None = None,
) -> float:
    """Run a command and return the seconds that it took, from its start to its end."""
    began = time.perf_counter()
    output(command, environment, folder=folder)
    return time.perf_counter() - began


def in_turns(rounds: int, sides: Mapping[str, Side]) -> dict[str, tuple[float, ...]]:
    """Measure every side once a round, each one first in turn, so that load meets them all."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            # what an earlier side wrote is not for this one to wait for
            os.sync()
            taken[name].append(sides[name]())
        told = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in taken.items())
        say(f"  round {number + 1} of {rounds}: {told}")
    return {name: tuple(values) for name, values in taken.items()}
