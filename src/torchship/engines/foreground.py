"""A container of docker's or podman's in the foreground: its streams, its signals, its end."""

from __future__ import annotations

import fcntl
import os
import pty
import queue
import signal
import struct
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType

from msgspec import Struct

from torchship.engines.client import Client
from torchship.engines.relay import Relay, Streams
from torchship.engines.signals import heard
from torchship.engines.terminal import Terminal
from torchship.engines.variables import variables

_PAUSE = 0.1  # seconds until a signal that found no running container is sent again


class Ended(Struct, frozen=True, kw_only=True):
    """How a container's client ended: ``errors`` is the tail of what came on standard error.

    ``killed`` tells that it was ended at the caller's own wish, by a second Ctrl-C.
    """

    status: int
    errors: str
    killed: bool


class Foreground(Struct, frozen=True, kw_only=True):
    """A container to be. ``arguments`` follow ``run`` and its environment; ``name`` is its own."""

    client: Client
    name: str
    arguments: Sequence[str]
    streams: Streams

    def run(self, environment: dict[str, str]) -> Ended:
        """Run it to its end, passing signals on. It is gone afterwards, whatever happened."""
        with ExitStack() as stack:
            passed = stack.enter_context(variables(environment))
            line = self.client.command("run", *passed.words, *self.arguments)
            process, master = self._spawn(line, passed.descriptors, dict(passed.environment))
            stack.callback(self._end, process)
            relay = Relay(self.streams, process)
            stack.callback(relay.close)
            sender = stack.enter_context(self._signals(process))
            status = relay.until_end(process, master)
            return Ended(
                status=128 - status if status < 0 else status,
                errors=relay.tail.decode(errors="replace"),
                killed=sender.killed,
            )

    def _spawn(
        self, line: Sequence[str], descriptors: Sequence[int], environment: dict[str, str]
    ) -> tuple[subprocess.Popen[bytes], int | None]:
        interactive = self.streams.stdin is not None
        if self.streams.terminal is None:
            process = subprocess.Popen(
                line,
                stdin=subprocess.PIPE if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=descriptors,
                env={**self.client.environment, **environment},
                start_new_session=True,  # Ctrl-C is for the container, and passed on by us
                preexec_fn=_bound(None),
            )
            return process, None
        master, slave = _terminal(self.streams.terminal)
        try:
            process = subprocess.Popen(
                line,
                stdin=slave if interactive else subprocess.DEVNULL,
                stdout=slave,
                stderr=subprocess.PIPE,  # the client's own words: the program's are all on stdout
                pass_fds=(*descriptors, slave),
                env={**self.client.environment, **environment},
                start_new_session=True,
                preexec_fn=_bound(slave),
            )
        except OSError:
            os.close(master)
            raise
        finally:
            os.close(slave)
        return process, master

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Leave nothing behind: a client that was killed has not removed its container."""
        if process.poll() is None:
            process.kill()
        if process.wait() not in range(125):
            self.client.ask("rm", "--force", "--volumes", self.name)

    @contextmanager
    def _signals(self, process: subprocess.Popen[bytes]) -> Iterator[_Sender]:
        """Pass signals on to the program; a second Ctrl-C ends it at once, a third the client."""
        sender = _Sender(client=self.client, name=self.name, process=process)
        worker = threading.Thread(target=sender.work, name="signals", daemon=True)
        worker.start()
        try:
            with heard(sender.hear):
                yield sender
        finally:
            sender.stop()
            worker.join()


class _Sender:
    """Sends signals by the engine, again and again while there is no running container yet.

    The client would pass on what it is sent, but forgets what comes before the container runs.
    """

    def __init__(self, *, client: Client, name: str, process: subprocess.Popen[bytes]) -> None:
        self._client = client
        self._name = name
        self._process = process
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._interrupted = 0
        self.killed = False

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal, in a signal handler."""
        self._interrupted += number == signal.SIGINT
        self.killed = self._interrupted > 1
        if self._interrupted > 2:  # an engine that no longer answers
            self._process.kill()
        self._waiting.put(signal.SIGKILL if self.killed else number)

    def stop(self) -> None:
        """Let `work` end."""
        self._waiting.put(0)

    def work(self) -> None:
        """Send what was heard, until the end."""
        while number := self._waiting.get():
            while self._process.poll() is None and not self._sent(number):
                try:
                    number = self._waiting.get(timeout=_PAUSE)
                except queue.Empty:
                    continue
                if not number:
                    return

    def _sent(self, number: int) -> bool:
        return self._client.ask("kill", f"--signal={number}", self._name).status == 0


def _terminal(shown: Terminal) -> tuple[int, int]:
    master, slave = pty.openpty()
    rows, columns = shown.size()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    tty.setraw(slave)  # the program's own terminal is in the container; this one only carries it
    return master, slave


def _bound(slave: int | None) -> Callable[[], None]:
    """Return what the client does first: get the terminal's signals, and those of our death.

    When torchship is killed, even with ``kill -9``, the client hears SIGTERM and passes it on,
    and removes the container when the program has ended.
    """
    if sys.platform == "linux":
        # imported here, not in the child: between fork and exec nothing may be loaded
        from torchship.engines.syscalls import end_with_parent
    else:

        def end_with_parent(number: int) -> None:
            """Only Linux tells of a parent's end."""

    def first() -> None:
        if slave is not None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        end_with_parent(signal.SIGTERM)

    return first
