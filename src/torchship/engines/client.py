"""The command-line program of a container engine: asked, and its answers read."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

from msgspec import Struct

from torchship.errors import EngineError

_PATIENCE = 120
"""Seconds that a daemon may take for an order; a disk that is busy makes it wait."""


class Answer(Struct, frozen=True, kw_only=True):
    """What the program printed and how it ended."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The last thing that it said was wrong, without its own prefixes."""
        return last_words(self.err) or f"it ended with status {self.status}"


class Client:
    """``docker``, ``podman`` or one of Slurm's, as the caller's PATH and environment have it."""

    def __init__(self, program: str, *, health: str | None = None) -> None:
        """``health`` is a command that shows whether the program's daemon answers."""
        self.program = program
        self._health = health or f"{program} info"
        self._left: list[subprocess.Popen[bytes]] = []
        # Podman insists on a file wherever these point. We ask it for nothing that has accounts.
        left_out = () if program == "docker" else ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE")
        self.environment = {k: v for k, v in os.environ.items() if k not in left_out}

    @property
    def installed(self) -> bool:
        """Tell whether there is such a program."""
        return shutil.which(self.program) is not None

    def command(self, *arguments: str) -> tuple[str, ...]:
        """Return a command line of the program."""
        return (self.program, *arguments)

    def ask(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        patience: float | None = _PATIENCE,
        folder: Path | None = None,
    ) -> Answer:
        """Run the program in a folder; `EngineError` where there is none, or after ``patience``."""
        try:
            done = subprocess.run(
                self.command(*arguments),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                env=self.environment,
                cwd=folder,
                timeout=patience,
                check=False,
                start_new_session=True,  # Ctrl-C is for the container, and passed on to it
            )
        except FileNotFoundError:
            raise EngineError(f"{self.program} is not installed") from None
        except subprocess.TimeoutExpired:
            raise self._silent(arguments[0], patience) from None
        return Answer(
            status=done.returncode,
            out=done.stdout.decode(errors="replace"),
            err=done.stderr.decode(errors="replace"),
        )

    def leave(self, *arguments: str) -> None:
        """Start the program and do not wait for it: work that nobody needs the end of."""
        process = subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            start_new_session=True,
        )
        self._left.append(process)

    def tell(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run the program and return what it printed; `EngineError` with its words if it fails."""
        answer = self.ask(*arguments, stdin=stdin)
        if answer.status != 0:
            raise EngineError(f"{self.program} {arguments[0]}: {answer.complaint}")
        return answer.out

    def copied(self, image: str, path: str, limit: int) -> bytes:
        """Return a tar of one path of an image; nothing where it has more than ``limit`` bytes.

        No program of the image is started for it.
        """
        # What the image declares as volumes is made now, and goes with the container
        container = self.tell("create", "--network=none", image, "true").strip()
        try:
            follow = ("--follow-link",) if self.program == "docker" else ()
            return self._printed("cp", *follow, f"{container}:{path}", "-", limit=limit)
        finally:
            self.ask("rm", "--force", "--volumes", container)

    def _printed(self, *arguments: str, limit: int) -> bytes:
        """Return what the program prints; nothing where it fails, or would print more.

        An image says how much that is, as by a link to ``/`` in the place of a small file.
        """
        process = subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            start_new_session=True,
        )
        assert process.stdout is not None
        ends = time.monotonic() + _PATIENCE
        watch = threading.Timer(_PATIENCE, process.kill)
        watch.start()
        try:
            printed = process.stdout.read(limit + 1)
            if len(printed) > limit:
                return b""
            status = process.wait()
        finally:
            watch.cancel()
            process.stdout.close()  # what it would still print is not waited for
            process.kill()
            process.wait()
        if time.monotonic() >= ends:
            raise self._silent(arguments[0], _PATIENCE)
        return printed if status == 0 else b""

    def _silent(self, what: str, patience: float | None) -> EngineError:
        return EngineError(
            f"`{self.program} {what}` gave no answer in {patience} s",
            hint=f"look whether `{self._health}` answers",
        )


def last_words(errors: str) -> str:
    """Return the last complaint of several lines, without what each layer puts before it."""
    lines = [line.strip() for line in errors.splitlines()]
    told = [line for line in lines if line and not line.startswith(("See '", "Run '"))]
    last = told[-1] if told else ""
    for prefix in ("docker: ", "Error: ", "Error response from daemon: "):
        last = last.removeprefix(prefix)
    return last.removesuffix(".")
