"""A run's output, brought from its pod: a tar archive through ``kubectl exec``, checked.

Nothing that arrives is trusted: an archive of files and folders is unpacked into a folder of its
own, which takes the output's place when it is whole.
"""

from __future__ import annotations

import os
import select
import shutil
import tempfile
import time
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from torchship.errors import EngineError, HostileInput
from torchship.launch.kubernetes.kubectl import Kubectl, Process, end, refusal
from torchship.layers import tarstream
from torchship.layers.tarstream import BLOCK, Member

MAX_ENTRIES = 1_000_000
MAX_DEPTH = 128

_TRIES = 3
_PAUSE = 2  # seconds between them
_STALL = 120
"""Seconds without a byte after which a connection is given up."""

_LEAVE = 5  # seconds that kubectl has to end by itself
_PIECE = 1 << 20
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def fetch(
    kubectl: Kubectl, *, pod: str, container: str, pid: int, source: str, output: Path
) -> int:
    """Bring a pod's folder to an empty one here, and let the pod end; return the bytes of it.

    ``pid`` keeps the pod. Raises `HostileInput` for an archive that breaks the rules, and
    `EngineError` where the cluster refuses, or the connection breaks again and again.
    """
    script = (files(__package__) / "scripts" / "fetch.py").read_text()
    command = ("python3", "-c", script, str(pid), source)
    arguments = ("exec", "--stdin", f"--container={container}", pod, "--", *command)
    for attempt in range(1, _TRIES + 1):
        folder = Path(tempfile.mkdtemp(prefix=".arriving-", dir=output.parent))
        try:
            return _attempt(kubectl, arguments, folder, output)
        except _Broken as broken:
            if attempt == _TRIES:
                raise EngineError(
                    f"the outputs could not be brought here: {broken.message}",
                    hint="with --output-claim NAME they stay in the cluster, too",
                ) from None
            time.sleep(_PAUSE)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    raise AssertionError("the last attempt returns or raises")


class _Broken(EngineError):
    """The connection ended before the archive did."""


def _attempt(kubectl: Kubectl, arguments: tuple[str, ...], folder: Path, output: Path) -> int:
    with kubectl.converse(*arguments) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            source = Arriving(process.stdout.fileno())
            try:
                size = unpack(source, folder)
            except HostileInput as error:
                if source.ended:
                    raise _why(process, arguments, error.message) from None
                raise
            folder.chmod(0o755)
            folder.rename(output)  # "newpath ... must be an empty directory": rename(2)
            with suppress(BrokenPipeError):  # all is here; the pod ends by itself
                process.stdin.write(b"arrived\n")
                process.stdin.close()
            source.to_the_end()
            return size
        finally:
            process.kill()


def _why(process: Process, arguments: tuple[str, ...], said: str) -> EngineError:
    """Tell a cluster that refuses from a connection that breaks, or stands still."""
    assert process.stderr is not None
    end(process, _LEAVE)  # one that stands still would never close its errors
    errors = process.stderr.read().decode(errors="replace")
    refused = refusal(errors, arguments)
    forbidden = "does not allow" in refused.message
    return refused if forbidden else _Broken(refused.said or said)


class Arriving:
    """Reads a pipe that must not stand still; ``ended`` tells that there is no more of it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()
        self.ended = False

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes, or fewer at the end."""
        while len(self._buffer) < size and not self.ended:
            if not select.select([self._descriptor], [], [], _STALL)[0]:
                self.ended = True  # so that it is tried again
                break
            piece = os.read(self._descriptor, _PIECE)
            self.ended = not piece
            self._buffer += piece
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    def to_the_end(self) -> None:
        """Read what is left, which nobody wants, until whoever writes has ended."""
        while self.read(_PIECE):
            pass


def unpack(source: tarstream.Source, folder: Path) -> int:
    """Write an archive's files and folders below a folder that nobody else writes to.

    No link is ever made there, so no path leads out of it. Returns the bytes of all files;
    raises `HostileInput`.
    """
    total = 0
    for count, member in enumerate(tarstream.members(source), start=1):
        if count > MAX_ENTRIES:
            raise HostileInput(f"the outputs are more than {MAX_ENTRIES} files")
        path = folder.joinpath(*_parts(member.path))
        try:
            if member.kind == tarstream.DIRECTORY:
                path.mkdir(parents=True, exist_ok=True)
                continue
            if member.kind != tarstream.REGULAR:
                raise HostileInput(f"the output {_shown(member.path)} is neither file nor folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, member, source)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise HostileInput(f"the output {_shown(member.path)} comes twice") from None
        total += member.size
    return total


def _write(path: Path, member: Member, source: tarstream.Source) -> None:
    descriptor = os.open(path, _FILE, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        left = member.size
        while left:
            piece = source.read(min(left, _PIECE))
            if not piece:
                raise HostileInput(f"the output {_shown(member.path)} ends too early")
            file.write(piece)
            left -= len(piece)
    source.read(-member.size % BLOCK)


def _parts(path: bytes) -> tuple[str, ...]:
    parts = tuple(part for part in path.split(b"/") if part not in (b"", b"."))
    if path.startswith(b"/") or b".." in parts or b"\0" in path or len(parts) > MAX_DEPTH:
        raise HostileInput(f"the output {_shown(path)} would leave its folder")
    return tuple(os.fsdecode(part) for part in parts)


def _shown(path: bytes) -> str:
    return repr(path.decode("utf-8", "backslashreplace"))[1:-1]
