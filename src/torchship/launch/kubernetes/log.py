"""A pod's log as it comes: passed on, but for the line that says that its program has ended."""

from __future__ import annotations

import os
import re
import select
import time
from dataclasses import dataclass

from torchship.launch.kubernetes.kubectl import Kubectl, Process, last_words

_BLOCK = 1 << 16
_STILL = 0.3
"""Seconds after which what could be the beginning of the last line is taken for the program's."""

_LONGEST = 200  # bytes of that line


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The program has ended, and its pod is kept by the process ``pid`` there."""

    status: int
    pid: int


class Log:
    """``kubectl logs --follow`` of one container.

    Where the connection breaks it is asked for once more from the beginning, and what has been
    passed on already is passed over.
    """

    def __init__(
        self, kubectl: Kubectl, pod: str, container: str, mark: str, sinks: tuple[int, ...]
    ) -> None:
        self._kubectl = kubectl
        self._arguments = ("logs", "--follow", f"--container={container}", f"pod/{pod}")
        self._line = re.compile(rb"\n" + re.escape(mark.encode()) + rb" (\d{1,3}) (\d{1,9})\n")
        self._start = b"\n" + mark.encode() + b" "
        self._sinks = sinks
        self._held = b""
        self._at = 0  # bytes of this connection
        self._seen = 0  # bytes of all of them
        self._process: Process | None = None
        self.complaint = ""
        """What kubectl said last, where it ended without success."""
        self.ended: Ended | None = None

    def copy(self, seconds: float) -> bool:
        """Pass on what comes within some seconds; True where no more will come for now.

        Returns at once when the program has ended, or the log.
        """
        process = self._process or self._open()
        assert process.stdout is not None
        until = time.monotonic() + seconds
        while self.ended is None:
            left = until - time.monotonic()
            if left <= 0:
                return False
            ready = select.select([process.stdout], [], [], min(left, _STILL))[0]
            if not ready:
                self._pass(flush=True)
                continue
            piece = os.read(process.stdout.fileno(), _BLOCK)
            if not piece:
                self._pass(flush=True)
                self._shut()
                return True
            self._take(piece)
        return False

    def close(self) -> None:
        """Stop following, and pass on what is held."""
        self._pass(flush=True)
        if self._process is not None:
            self._process.kill()
            self._shut()

    def _open(self) -> Process:
        self._process = self._kubectl.start(*self._arguments)
        self._at = 0
        return self._process

    def _shut(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        assert process.stderr is not None
        assert process.stdout is not None
        self.complaint = last_words(process.stderr.read().decode(errors="replace"))
        if process.wait() == 0:
            self.complaint = ""
        process.stdout.close()
        process.stderr.close()

    def _take(self, piece: bytes) -> None:
        new = piece[max(0, self._seen - self._at) :]
        self._at += len(piece)
        self._seen = max(self._seen, self._at)
        self._held += new
        match = self._line.search(self._held)
        if match is not None:
            self.ended = Ended(status=int(match[1]), pid=int(match[2]))
            self._held = self._held[: match.start()]
        self._pass(flush=match is not None)

    def _pass(self, *, flush: bool) -> None:
        kept = b"" if flush else self._beginning()
        ready = self._held[: len(self._held) - len(kept)]
        self._held = kept
        for sink in self._sinks:
            write(sink, ready)

    def _beginning(self) -> bytes:
        """Return the end of what is held, where it could be the beginning of the last line."""
        at = self._held.rfind(b"\n")
        tail = self._held[at:] if at >= 0 else b""
        possible = self._start.startswith(tail) or tail.startswith(self._start)
        return tail if possible and len(tail) <= _LONGEST else b""


def write(sink: int, data: bytes) -> None:
    """Write all of it to a descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(sink, view) :]
