"""The native engine: an image runs on a bare Linux, without root, Docker or Podman."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from torchship.digest import Digest
from torchship.engines import container, leftover, namespaces, unpack, users
from torchship.engines.container import Bind, Container
from torchship.engines.gpu import native_injection
from torchship.engines.injection import LIBRARIES, Injection
from torchship.engines.memory import limited
from torchship.engines.relay import StartError, Streams
from torchship.engines.request import Request
from torchship.engines.terminal import Terminal
from torchship.errors import EngineError
from torchship.layers.layer import Layer
from torchship.layers.layout import OUTPUT
from torchship.oci.image import Image
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT, Progress

_WRITTEN = 60.0
"""Seconds after which Linux has written a file to the disk by itself, and then some: it starts
after 30 (Documentation/admin-guide/sysctl/vm.rst, dirty_expire_centisecs)."""

MAX_LAYERS = 500
"""Linux takes no more in one overlay (fs/overlayfs); Docker stops at 127."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Native:
    """Runs images of a store in namespaces of its own."""

    name = "native"

    def __init__(self, store: Store, *, progress: Progress = SILENT) -> None:
        self._store = store
        self._progress = progress
        self._unpacked: dict[tuple[Digest, ...], tuple[Path, ...]] = {}
        self._leases = ExitStack()
        weakref.finalize(self, self._leases.close)

    def missing(self) -> str | None:
        """Say why no container can be started here; None where one can."""
        found = namespaces.obstacle()
        return None if found is None else found.reason

    def prepare(self, image: Image, *, progress: Progress = SILENT) -> None:  # noqa: ARG002 (takes a moment)
        """Unpack what is not unpacked yet; `prune` leaves it while this engine lives."""
        self._layers(image.layers)

    def run(self, request: Request) -> int:
        """Unpack what is not unpacked yet, run, and return the exit status.

        Raises `EngineError` where the program cannot be started, `LayerError` for an image
        that would harm this machine.
        """
        _check(request)
        layers = self._layers(request.image.layers)
        user = users.resolve(request.image.user, layers)
        injected = native_injection(request.gpus)
        with ExitStack() as stack:
            log = stack.enter_context(request.log.open("wb")) if request.log else None
            streams = Streams(
                stdin=0 if request.interactive else None,
                stdout=request.stdout,
                stderr=request.stderr,
                log=log,
                terminal=Terminal(0) if request.tty else None,
            )
            box = Container(
                layers=layers,
                command=request.image.entrypoint + (request.command or request.image.command),
                scratch=self._store.home / "scratch",
                environment=_environment(request, user, injected),
                workdir=request.image.workdir or "/",
                uid=user.uid,
                gid=user.gid,
                hostname=request.image.descriptor.digest.short,
                binds=_binds(request, injected),
                devices=injected.devices,
                links=injected.links,
                network=request.network,
                processors=math.ceil(request.processors) if request.processors else None,
                prefix=stack.enter_context(limited(request.memory)),
            )
            try:
                return container.run(box, streams, leaving=partial(self._tell, box))
            except StartError as error:
                raise explained(error) from error

    def _tell(self, box: Container, upper: Path) -> None:
        mounts = {bind.target for bind in (*box.binds, *box.devices)}
        lost = leftover.leftover(upper, box.workdir, mounts=mounts)
        if lost:
            self._progress.say(leftover.told(lost, kept=OUTPUT))

    def _layers(self, layers: Sequence[Layer]) -> tuple[Path, ...]:
        key = tuple(layer.diff_id for layer in layers)
        if key not in self._unpacked:
            self._unpacked[key] = self._unpack(layers)
        return self._unpacked[key]

    def _unpack(self, layers: Sequence[Layer]) -> tuple[Path, ...]:
        store = self._store
        store.hold()
        folders = unpack.unpack_all(
            layers, lambda layer: store.open_blob(layer.digest), store.unpacked
        )
        self._leases.enter_context(unpack.lease(folders))
        if waiting := unpack.unsettled(store.unpacked, layers, age=_WRITTEN):
            threading.Thread(
                target=self._settle, args=(waiting,), name="settle", daemon=True
            ).start()
        # overlayfs refuses a folder that stands twice. What a layer holds and hides is the same
        # with its lower occurrences left out: the uppermost one says it all again.
        return tuple(reversed(dict.fromkeys(reversed(folders))))

    def _settle(self, layers: Sequence[Layer]) -> None:
        unpack.settle(self._store.unpacked, layers)  # with this engine, and so its leases, alive


def explained(error: StartError) -> EngineError:
    """Turn what the sandbox reported into what the user can do about it."""
    if error.stage == "program":
        return EngineError(
            f"the image's program could not be started: {error.detail}",
            hint="check the command, and that the image has it",
        )
    if error.stage == "namespaces":
        known = namespaces.explain(error.detail)
        return EngineError(known.reason, hint=known.hint)
    if "mount overlay" in error.detail:
        return EngineError(
            f"the image's layers could not be stacked: {error.detail}",
            hint=f"set TORCHSHIP_HOME to a folder on ext4, xfs or btrfs, or {namespaces.OTHER}",
        )
    found = namespaces.obstacle()
    if found is not None:
        return EngineError(found.reason, hint=found.hint)
    if not error.stage:
        return EngineError(error.message, hint=namespaces.OTHER)
    return EngineError(
        f"the container could not be started: {error.stage}: {error.detail}",
        hint=namespaces.OTHER,
    )


def _check(request: Request) -> None:
    image = request.image
    if not image.platform.is_host:
        raise EngineError(
            f"the image is for {image.platform}, and this machine runs {Platform.host()}",
            hint="build it for this platform, or use an engine that emulates others",
        )
    words = image.entrypoint + (request.command or image.command)
    if not words:
        raise EngineError("the image names no command", hint="give one after `--`")
    if not words[0] or any("\0" in word for word in words):
        raise EngineError(
            "the command's first word is empty, or one of them holds a NUL byte",
            hint="give another command after `--`",
        )
    if len(image.layers) > MAX_LAYERS:
        raise EngineError(f"the image has {len(image.layers)} layers, more than {MAX_LAYERS}")
    if not image.layers:
        raise EngineError("the image has no layers: there is nothing in it to run")


def _environment(request: Request, user: users.User, injected: Injection) -> dict[str, str]:
    found = {
        "PATH": _PATH,
        "HOME": user.home,
        "HOSTNAME": request.image.descriptor.digest.short,
        **request.image.environment,
        **injected.environment,
        **request.environment,
    }
    if injected.libraries:
        searched = found.get("LD_LIBRARY_PATH", "")
        found["LD_LIBRARY_PATH"] = f"{searched}:{LIBRARIES}".lstrip(":")
    if request.tty:
        # How to draw on the caller's terminal is all that is taken from their environment
        found.setdefault("TERM", os.environ.get("TERM", "xterm"))
    return found


def _binds(request: Request, injected: Injection) -> tuple[Bind, ...]:
    asked = list(injected.binds)  # first: what the user mounts on the same path covers it
    asked += [
        Bind(source=mount.source, target=mount.target, read_only=mount.read_only)
        for mount in request.mounts
    ]
    if request.output is not None:
        asked.append(Bind(source=request.output.absolute(), target=OUTPUT, read_only=False))
    # Parents first: a mount would hide what stands below it
    return tuple(sorted(asked, key=lambda bind: bind.target.rstrip("/").count("/")))
