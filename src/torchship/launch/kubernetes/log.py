"""A pod's log as it comes: passed on, but for the line that says that its program has ended."""

from __future__ import annotations

import os
import re
import select
import sys
import time
from datetime import UTC, datetime

from msgspec import Struct

from torchship.engines.relay import write_all
from torchship.launch.kubernetes.kubectl import Kubectl, Process, last_words

_BLOCK = 1 << 16
_STILL = 0.3
"""Seconds after which a line's end is taken for the program's, not for the last line's."""

_LONGEST = 200  # bytes of that line
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ")
_LONGEST_STAMP = 36  # bytes

_Place = tuple[int, int, int]
"""A line of a log: seconds and nanoseconds of its time, and how many of that time precede it."""


class Ended(Struct, frozen=True, kw_only=True):
    """The program has ended, and its pod is kept by the process ``pid`` there."""

    status: int
    pid: int


class Log:
    """``kubectl logs --follow --timestamps`` of one container, its timestamps taken off.

    Where the connection breaks, it is asked for once more from the second on in which the last
    line was written, and what has been passed on already is passed over. Offsets would not do: a
    node keeps the end of a log alone, by default 10 MiB of it (Kubernetes, "Logging
    Architecture", log rotation).
    """

    def __init__(
        self, kubectl: Kubectl, pod: str, container: str, mark: str, sinks: tuple[int, ...]
    ) -> None:
        self._kubectl = kubectl
        self._pod = f"pod/{pod}"
        self._arguments = ("logs", "--follow", "--timestamps", f"--container={container}")
        self._start = mark.encode() + b" "
        self._line = re.compile(re.escape(self._start) + rb"(\d{1,3}) (\d{1,9})\n")
        self._sinks = sinks
        self._raw = bytearray()  # what is not understood yet
        self._inside = False  # a line, whose time was read
        self._fresh = False  # of that line nothing was read but the time
        self._place: _Place | None = None  # of that line, in this connection
        self._reached: _Place | None = None  # the last line that was passed on
        self._part = 0  # bytes of it that were
        self._again = False  # what comes may have been passed on by an earlier connection
        self._skip = 0  # bytes of this line that were
        self._newline = False  # held back: it may belong to the mark, which begins with one
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
                self._release()
                continue
            piece = os.read(process.stdout.fileno(), _BLOCK)
            if not piece:
                self._shut()
                return True
            self._take(piece)
        return False

    def close(self) -> None:
        """Stop following, and pass on what is held."""
        if self.ended is None:
            if self._inside:
                self._pass(self._new(bytes(self._raw)))
            self._raw.clear()
            self._release()
        if self._process is not None:
            self._process.kill()
            self._shut()

    def _open(self) -> Process:
        since: tuple[str, ...] = ()
        if self._reached is not None:
            second = datetime.fromtimestamp(self._reached[0], UTC)
            since = (f"--since-time={second:%Y-%m-%dT%H:%M:%SZ}",)
        self._process = self._kubectl.start(*self._arguments, *since, self._pod)
        self._again = self._reached is not None
        self._inside, self._place = False, None
        self._raw.clear()
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
        self._raw += piece
        ready = bytearray()
        while self._raw and self.ended is None:
            if not self._inside and not self._begin():
                break
            end = self._raw.find(b"\n") + 1
            text = bytes(self._raw[:end] if end else self._raw)
            if self._fresh and self._may_be_mark(text):
                if not end:
                    break
                if match := self._line.fullmatch(text):
                    self._pass(bytes(ready))
                    self.ended = Ended(status=int(match[1]), pid=int(match[2]))
                    return
            del self._raw[: len(text)]
            self._fresh, self._inside = False, not end
            ready += self._new(text)
        self._pass(bytes(ready))

    def _begin(self) -> bool:
        """Read the time that a line begins with; False where more of it has yet to come.

        A line without one is the node's own, such as "unable to retrieve container logs".
        """
        stamp = _STAMP.match(self._raw)
        if stamp is None and len(self._raw) < _LONGEST_STAMP and b"\n" not in self._raw:
            return False
        self._inside = self._fresh = True
        self._skip = 0
        moment = _moment(stamp) if stamp is not None else None
        if stamp is None or moment is None:
            return True
        del self._raw[: stamp.end()]
        before = self._place
        same = before is not None and before[:2] == moment
        self._place = (*moment, before[2] + 1 if before is not None and same else 0)
        if self._again and self._reached is not None and self._place < self._reached:
            self._skip = sys.maxsize
        elif self._again and self._place == self._reached:
            self._again, self._skip = False, self._part
        else:
            self._again, self._reached, self._part = False, self._place, 0
        return True

    def _may_be_mark(self, text: bytes) -> bool:
        alike = text.startswith(self._start) or self._start.startswith(text)
        return alike and len(text) <= _LONGEST

    def _new(self, text: bytes) -> bytes:
        """Return what of some bytes of a line was not passed on before."""
        new = text[self._skip :]
        self._skip = max(0, self._skip - len(text))
        self._part += len(new)
        return new

    def _pass(self, data: bytes) -> None:
        if not data:
            return
        whole = b"\n" * self._newline + data
        self._newline = whole.endswith(b"\n")
        self._write(whole[:-1] if self._newline else whole)

    def _release(self) -> None:
        """Pass on a line's end that was held back."""
        if self._newline:
            self._newline = False
            self._write(b"\n")

    def _write(self, data: bytes) -> None:
        for sink in self._sinks:
            write_all(sink, data)


def _moment(stamp: re.Match[bytes]) -> tuple[int, int] | None:
    try:
        second = datetime.fromisoformat((stamp[1] + stamp[3]).decode())
    except ValueError:
        return None
    return int(second.timestamp()), int((stamp[2] or b"").ljust(9, b"0"))
