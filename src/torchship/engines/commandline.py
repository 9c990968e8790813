"""What docker and podman have in common: a run by their command-line programs."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from torchship.digest import Descriptor, Digest
from torchship.engines import handover, users
from torchship.engines.client import Client, last_words
from torchship.engines.foreground import Ended, Foreground
from torchship.engines.held import Held, parse
from torchship.engines.namespaces import Obstacle
from torchship.engines.relay import Streams
from torchship.engines.request import Request
from torchship.engines.terminal import Terminal
from torchship.errors import EngineError
from torchship.layers.layout import OUTPUT
from torchship.oci import mediatypes
from torchship.oci.image import Image, children
from torchship.oci.store import Store
from torchship.progress import SILENT, Progress

LABEL = "dev.torchship.run"
"""Marks the containers that torchship made; its value is the image's manifest digest."""

_KILLED = 137
_ENGINES_OWN = (125, 126, 127)  # which a program may give as well
_INIT_REFUSES = re.compile(
    r"^(?:\[FATAL tini \(\d+\)\] |(?:ERROR|FATAL)?[^\n]*catatonit[^\n:]*: )(.*exec.*?)\s*\Z", re.M
)
"""How tini and catatonit report that they could not exec the program."""
_ROOTS = ("CHOWN", "DAC_OVERRIDE", "FOWNER")


class CommandLineEngine(ABC):
    """An engine that is reached through its command-line program."""

    name: str
    inspection: str
    """What makes ``image inspect`` write a line that `held.parse` reads."""

    def __init__(self, store: Store, *, progress: Progress = SILENT) -> None:
        self._store = store
        self._progress = progress
        self._client = Client(self.name)
        self._prepared: dict[str, str] = {}

    def missing(self) -> str | None:
        """Say in one sentence why the engine cannot be used here; None: it can. Takes 0.1 s."""
        found = self._obstacle()
        return None if found is None else found.reason

    def _require(self) -> None:
        """Raise `EngineError`, with what to do, where the engine cannot be used."""
        found = self._obstacle()
        if found is not None:
            raise EngineError(found.reason, hint=found.hint)

    @abstractmethod
    def _obstacle(self) -> Obstacle | None:
        """Return what keeps the engine from being used here; it is looked for once."""

    @abstractmethod
    def _rootless(self) -> bool:
        """Tell whether root inside a container is the caller outside."""

    @abstractmethod
    def _bring(self, image: Image, progress: Progress) -> str:
        """Make sure that the engine holds an image; return what the engine calls it."""

    @abstractmethod
    def _own_arguments(self, request: Request) -> tuple[str, ...]:
        """Return what only this engine's ``run`` takes."""

    @abstractmethod
    def _give_back(self, folder: Path) -> None:
        """Give what other users wrote to the caller; `EngineError` where it cannot be done."""

    @abstractmethod
    def _until_now(self) -> str:
        """Return what keeps ``events`` from waiting for more of them."""

    @abstractmethod
    def _out_of_memory(self, request: Request, name: str, began: float) -> str | None:
        """Say so where the kernel ended a program for want of memory."""

    def prepare(self, image: Image, *, progress: Progress = SILENT) -> None:
        """Bring an image in, without its layers that the engine has already."""
        self._require()
        self._prepared[str(image.descriptor.digest)] = self._bring(image, progress)

    def run(self, request: Request) -> int:
        """Run to the end and return the program's exit status: 128 + N after signal N.

        Raises `EngineError` where the program could not be started.
        """
        if str(request.image.descriptor.digest) not in self._prepared:
            self.prepare(request.image, progress=self._progress)
        held = self._prepared[str(request.image.descriptor.digest)]
        name = f"torchship-{secrets.token_hex(6)}"
        with ExitStack() as stack:
            user = self._user(request.image, held)
            if request.output is not None and not self._rootless():
                stack.callback(self._settle, request.output)
                stack.enter_context(handover.writable_by(user, request.output.absolute()))
            log = stack.enter_context(request.log.open("wb")) if request.log else None
            began = time.time()
            ended = Foreground(
                client=self._client,
                name=name,
                arguments=(*self._arguments(request, name, user), held, *request.command),
                streams=Streams(
                    stdin=0 if request.interactive else None,
                    stdout=request.stdout,
                    stderr=request.stderr,
                    log=log,
                    terminal=Terminal(0) if request.tty else None,
                ),
            ).run(_environment(request))
            return self._status(request, ended, name, began)

    def _status(self, request: Request, ended: Ended, name: str, began: float) -> int:
        if ended.status in _ENGINES_OWN:
            refused = _INIT_REFUSES.search(ended.errors)
            if refused is not None:
                raise _not_started(self.name, refused[1])
            if ended.errors and not self.events(name, began, "start"):
                raise _not_started(self.name, ended.errors)
        if ended.status == _KILLED and not ended.killed:
            found = self._out_of_memory(request, name, began)
            if found is not None:
                self._progress.say(found)
        return ended.status

    def events(self, name: str, began: float, kind: str) -> bool:
        """Tell whether the engine remembers an event of a container, which may be gone."""
        answer = self._client.ask(
            "events",
            f"--since={moment(began - 1)}",
            self._until_now(),
            f"--filter=container={name}",
            f"--filter=event={kind}",
            "--format={{.Status}}",
        )
        if answer.status != 0:
            raise EngineError(f"{self.name} does not tell how a container ended")
        return bool(answer.out.strip())

    def _user(self, image: Image, held: str) -> int:
        """Return the number, on this machine, of the user that the program runs as."""
        name = image.user.partition(":")[0]
        if name.isdecimal() or not name or self._rootless():
            return int(name or 0) if name.isdecimal() else 0
        found = users.look_up(
            image.user,
            lambda file: users.from_tar(
                self._client.copied(held, f"/etc/{file}", users.ARCHIVE_LIMIT)
            ),
        )
        return found.uid

    def _settle(self, output: Path) -> None:
        if not handover.all_mine(output):
            try:
                self._give_back(output.absolute())
            except EngineError as error:
                self._progress.say(
                    f"{output} still holds files of another user: {error.message}; "
                    f"`sudo chown -R {os.geteuid()} {output}` makes them yours"
                )

    def _arguments(self, request: Request, name: str, user: int) -> tuple[str, ...]:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        words = [
            *("--rm", f"--name={name}", f"--label={LABEL}={request.image.descriptor.digest}"),
            f"--hostname={request.image.descriptor.digest.short}",
            "--pull=never",
            # What the program prints is ours to keep; the engine's own copy would fill its disk
            "--log-driver=none",
            "--no-healthcheck",
            # On SELinux hosts a container may not read the user's folders otherwise. Relabelling
            # them (`:z`) would change files that are not ours, for good.
            "--security-opt=label=disable",
            "--security-opt=no-new-privileges",
            "--cap-drop=ALL",
            # Half the memory, as Linux gives /dev/shm: workers of a DataLoader need more than 64 MB
            f"--shm-size={memory // 2}",
        ]
        if self._rootless():
            # Root inside is the caller outside: what is written is the caller's at once
            words.append("--user=0:0")
        if self._rootless() or user == 0:
            words += [f"--cap-add={capability}" for capability in _ROOTS]
        if not request.network:
            words.append("--network=none")
        if not request.image.platform.is_host:
            words.append(f"--platform={request.image.platform}")
        if request.processors is not None:
            # More than there are is an error for Docker
            most = min(request.processors, float(os.cpu_count() or math.inf))
            words.append(f"--cpus={most:g}")
        if request.memory is not None:
            words += [f"--memory={request.memory}", f"--memory-swap={request.memory}"]
        if request.interactive:
            words.append("--interactive")
        if request.tty:
            words.append("--tty")
        for mount in request.mounts:
            words += bind(mount.source, mount.target, read_only=mount.read_only)
        if request.output is not None:
            words += bind(request.output.absolute(), OUTPUT, read_only=False)
        return (*words, *self._own_arguments(request))

    def _held(self, names: Sequence[str]) -> tuple[Held, ...]:
        """Return what the engine holds of these images, each once."""
        answer = self._client.ask("image", "inspect", f"--format={self.inspection}", *names)
        return parse(answer.out)

    def _names(self, image: Image) -> tuple[str, ...]:
        """Return the names that an image has in the store, without digests."""
        wanted = image.descriptor.digest
        return tuple(
            str(named.reference)
            for named in self._store.images()
            if named.reference.tag is not None
            and named.reference.digest is None
            and (named.descriptor.digest == wanted or wanted in self._below(named.descriptor))
        )

    def _below(self, top: Descriptor) -> frozenset[Digest]:
        if top.media_type not in mediatypes.INDEXES:
            return frozenset()
        return frozenset(child.digest for child in children(self._store, top))


def _environment(request: Request) -> dict[str, str]:
    found = dict(request.environment)
    if request.tty:
        # How to draw on the caller's terminal is all that is taken from their environment
        found.setdefault("TERM", os.environ.get("TERM", "xterm"))
    return found


def bind(source: Path, target: str, *, read_only: bool) -> tuple[str, str]:
    """Return the words that mount a path of this machine, whatever characters it has."""
    fields = ["type=bind", f"source={source}", f"target={target}"]
    if read_only:
        fields.append("readonly")
    # --mount, unlike -v, makes no folder where the source is missing; it is a line of CSV
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return "--mount", line.getvalue()


def moment(seconds: float) -> str:
    """Write a time, in seconds since the epoch, as every engine's ``events`` takes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _not_started(engine: str, errors: str) -> EngineError:
    detail = last_words(errors) or "it did not say why"
    lowered = detail.lower()
    if "executable file" in lowered or "no such file or directory" in lowered:
        hint = "check the command, and that the image has it"
    elif "bind source path does not exist" in lowered or "statfs" in lowered:
        hint = f"{engine} must run on this machine and see its folders"
    else:
        hint = "use --engine native, which needs no container engine"
    return EngineError(f"{engine} could not start the container: {detail}", hint=hint)
