"""Between the caller's streams and a program in a sandbox: bytes, its terminal, its end."""

from __future__ import annotations

import array
import errno
import marshal
import os
import select
import socket
import subprocess
import threading
from contextlib import ExitStack, suppress
from typing import Any, BinaryIO

from msgspec import Struct

from torchship.engines.terminal import Terminal
from torchship.errors import EngineError

_BLOCK = 1 << 16
_TAIL = 4096  # bytes of errors that are kept for an explanation


class Streams(Struct, frozen=True, kw_only=True):
    """Where the program's standard streams lead: descriptors, and a copy of all it prints."""

    stdin: int | None = None
    stdout: int = 1
    stderr: int = 2
    log: BinaryIO | None = None
    terminal: Terminal | None = None


class StartError(EngineError):
    """The sandbox could not be set up: ``stage`` and ``detail`` say where and how."""

    stage = ""
    detail = ""


class Relay:
    """Copies between the caller's streams and the program's until both ends are done."""

    def __init__(self, streams: Streams, process: subprocess.Popen[bytes]) -> None:
        self._streams = streams
        self._poll = select.poll()
        self._sinks: dict[int, int] = {}
        self._master: int | None = None
        self._input: int | None = None
        self._waiting = b""  # what the program has not yet taken of its input
        self._outputs = {process.stdout.fileno()} if process.stdout else set()
        self.tail = b""
        """The last of what came on standard error, or on a terminal, which has both."""
        self._files = [pipe for pipe in (process.stdin, process.stdout, process.stderr) if pipe]
        if process.stdout:
            self._source(process.stdout.fileno(), streams.stdout)
        if process.stderr:
            self._source(process.stderr.fileno(), streams.stderr)
        if process.stdin and streams.stdin is not None:
            self._feed(process.stdin.fileno())

    def close(self) -> None:
        """Close the program's ends."""
        for pipe in self._files:
            pipe.close()
        if self._master is not None:
            os.close(self._master)

    def until_exit(self, control: socket.socket) -> int | None:
        """Copy until the program has ended and all that it printed is through.

        Returns its exit status; None where the sandbox was killed. Raises `StartError`.
        """
        status: int | None = None
        alive = True
        started = False
        self._poll.register(control, select.POLLIN)
        with ExitStack() as stack:
            while alive or self._sinks:
                for descriptor, events in self._poll.poll():
                    if descriptor != control.fileno():
                        self._copy(descriptor, events)
                        continue
                    message = self._hear(control, stack)
                    if message is None:
                        alive = False
                        self._poll.unregister(control)
                        self._stop_feeding()
                    else:
                        started = True
                        status = message.get("status", status)
        if not started:
            raise StartError("the container ended before its program was started")
        return status

    def until_end(self, process: subprocess.Popen[bytes], master: int | None) -> int:
        """Copy until a process has ended and all that it printed is through; return its status.

        ``master`` is the other side of the terminal that the process is on; it is closed with
        the relay.
        """
        ended, ending = os.pipe()

        def watch() -> None:
            process.wait()
            os.close(ending)

        threading.Thread(target=watch, name="watch", daemon=True).start()
        self._poll.register(ended, select.POLLIN)
        alive = True
        with ExitStack() as stack:
            stack.callback(os.close, ended)
            if master is not None:
                self._take_terminal(master, stack)
            while alive or self._sinks:
                for descriptor, events in self._poll.poll():
                    if descriptor == ended:
                        alive = False
                        self._poll.unregister(ended)
                        self._stop_feeding()
                    else:
                        self._copy(descriptor, events)
        return process.wait()

    def _hear(self, control: socket.socket, stack: ExitStack) -> dict[str, Any] | None:
        space = socket.CMSG_SPACE(array.array("i").itemsize)
        try:
            data, extra, _, _ = control.recvmsg(_BLOCK, space)
        except ConnectionResetError:
            return None
        if not data:
            return None
        message: dict[str, Any] = marshal.loads(data)  # noqa: S302 (from our own child)
        if "stage" in message:
            error = StartError(f"the container could not be started: {message['error']}")
            error.stage, error.detail = message["stage"], message["error"]
            raise error
        if extra and self._streams.terminal is not None:
            self._take_terminal(array.array("i", extra[0][2])[0], stack)
        return message

    def _take_terminal(self, master: int, stack: ExitStack) -> None:
        assert self._streams.terminal is not None
        self._master = master
        self._source(master, self._streams.stdout)
        if self._streams.stdin is not None:
            self._feed(master)
        stack.enter_context(self._streams.terminal.attached(master))

    def _source(self, source: int, sink: int) -> None:
        self._sinks[source] = sink
        self._poll.register(source, select.POLLIN)

    def _feed(self, target: int) -> None:
        assert self._streams.stdin is not None
        os.set_blocking(target, False)
        self._input = target
        self._poll.register(self._streams.stdin, select.POLLIN)

    def _copy(self, descriptor: int, events: int) -> None:
        if descriptor == self._streams.stdin and self._input is not None:
            self._take_input()
        elif descriptor == self._input and events & (select.POLLOUT | select.POLLERR):
            self._give_input()
            if descriptor in self._sinks and events & (select.POLLIN | select.POLLHUP):
                self._print(descriptor)
        elif descriptor in self._sinks:
            self._print(descriptor)

    def _print(self, source: int) -> None:
        try:
            data = os.read(source, _BLOCK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that nobody has open any more
                raise
            data = b""
        if not data:
            self._poll.unregister(source)
            del self._sinks[source]
            return
        if source not in self._outputs:
            self.tail = (self.tail + data)[-_TAIL:]
        if self._streams.log is not None:
            self._streams.log.write(data)
            self._streams.log.flush()  # to be followed, and whole however we end
        try:
            write_all(self._sinks[source], data)
        except OSError as error:
            if error.errno != errno.EPIPE or source == self._master:
                raise EngineError(
                    f"what the program prints cannot be passed on: {error.strerror}",
                    hint="the program was ended; send its output to where there is room",
                ) from None
            self._hang_up(source)

    def _hang_up(self, source: int) -> None:
        """Let the program meet what it would meet without us: nobody reads (`| head`) any more."""
        self._poll.unregister(source)
        del self._sinks[source]
        for pipe in self._files:
            if pipe.fileno() == source:
                self._files.remove(pipe)
                pipe.close()
                break

    def _take_input(self) -> None:
        assert self._streams.stdin is not None and self._input is not None
        data = os.read(self._streams.stdin, _BLOCK)
        self._poll.unregister(self._streams.stdin)
        if not data:
            self._end_input()
            return
        self._waiting = data
        self._give_input()

    def _give_input(self) -> None:
        assert self._streams.stdin is not None and self._input is not None
        try:
            self._waiting = self._waiting[os.write(self._input, self._waiting) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # the program reads no more
            self._stop_feeding()
            return
        terminal = self._input in self._sinks
        if self._waiting:
            self._poll.register(self._input, select.POLLOUT | (select.POLLIN if terminal else 0))
            return
        if terminal:
            self._poll.register(self._input, select.POLLIN)
        else:
            self._forget(self._input)
        self._poll.register(self._streams.stdin, select.POLLIN)

    def _end_input(self) -> None:
        if self._input in self._sinks:
            assert self._input is not None
            os.write(self._input, b"\x04")  # end of file, in a terminal's words
            self._input = None
        else:
            self._stop_feeding()

    def _stop_feeding(self) -> None:
        if self._input is None:
            return
        assert self._streams.stdin is not None
        self._forget(self._streams.stdin)
        if self._input not in self._sinks:
            self._forget(self._input)
            for pipe in self._files:
                if pipe.fileno() == self._input:
                    self._files.remove(pipe)
                    pipe.close()
                    break
        self._input = None

    def _forget(self, descriptor: int) -> None:
        with suppress(KeyError):  # it is registered only while something is awaited from it
            self._poll.unregister(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of some bytes to a descriptor, which may take them in parts."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
