"""The docker engine: images run by a Docker daemon on this machine."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec import Struct

from torchship.digest import Digest
from torchship.engines import handover, helper
from torchship.engines.commandline import CommandLineEngine, moment
from torchship.engines.gpu import docker_arguments
from torchship.engines.held import free
from torchship.engines.namespaces import Obstacle
from torchship.engines.request import Request
from torchship.errors import EngineError
from torchship.oci.image import Image
from torchship.oci.reference import Reference
from torchship.progress import Progress

_LOCAL = ("unix://", "fd://", "tcp://127.0.0.1", "tcp://localhost", "tcp://[::1]")
_UNUSED_KEYS = "ctrl-@,ctrl-@,ctrl-@,ctrl-@"  # Docker's own would take ctrl-p from the shell
_ANSWER = 10  # seconds that a daemon may take to say what it is; one that is stuck takes for ever
_AT_ONCE = 200  # images in one question
_OTHER = "use --engine native, which needs no daemon"


class _Daemon(Struct, frozen=True, kw_only=True):
    """What matters of a daemon: whose root it has, how it keeps images, whether it has an init."""

    rootless: bool
    containerd: bool
    init: bool


class Docker(CommandLineEngine):
    """Runs images by ``docker run``."""

    name = "docker"
    inspection = "[{{json .Id}},{{json .RepoTags}},{{json .Config.Labels}}]"

    def _obstacle(self) -> Obstacle | None:
        found = self._looked
        return found if isinstance(found, Obstacle) else None

    def _rootless(self) -> bool:
        return self._daemon().rootless

    def _daemon(self) -> _Daemon:
        self._require()
        assert isinstance(self._looked, _Daemon), "anything else is an obstacle"
        return self._looked

    @cached_property
    def _looked(self) -> _Daemon | Obstacle:
        if not self._client.installed:
            return Obstacle("docker is not installed", _OTHER)
        address = os.environ.get("DOCKER_HOST", "")
        if address and not address.startswith(_LOCAL):
            return _elsewhere(address)
        try:
            answer = self._client.ask("info", "--format={{json .}}", patience=_ANSWER)
        except EngineError as error:
            return Obstacle(error.message, error.hint or _OTHER)
        if answer.status != 0:
            return _unreachable(answer.err)
        try:
            info: dict[str, Any] = json.loads(answer.out)
        except ValueError:
            return Obstacle(f"docker answers something unknown: {answer.out[:80]!r}", _OTHER)
        if "ServerVersion" not in info:
            return Obstacle(
                "the program docker here is another engine's stand-in", "use --engine podman"
            )
        if info.get("OSType") != "linux":
            return Obstacle(f"Docker runs {info.get('OSType')} containers here", _OTHER)
        context = (info.get("ClientInfo") or {}).get("Context", "default")
        if not address and context != "default":
            address = self._client.ask(
                "context", "inspect", "--format={{.Endpoints.docker.Host}}", context
            ).out.strip()
            if not address.startswith(_LOCAL):
                return _elsewhere(address)
        status = dict(info.get("DriverStatus") or ())
        return _Daemon(
            rootless=any("name=rootless" in one for one in info.get("SecurityOptions") or ()),
            containerd="containerd.snapshotter" in status.get("driver-type", ""),
            # Docker says so where it finds no docker-init
            init=(info.get("InitCommit") or {}).get("ID") != "N/A",
        )

    # -- bringing an image in

    def _bring(self, image: Image, progress: Progress) -> str:
        names = tuple(Reference.parse(name).familiar for name in self._names(image))
        known = {str(image.config.digest), str(image.descriptor.digest)}
        held = self._held((*sorted(known), *names))
        here = next((one for one in held if one.id in known), None)
        names = free(names, image, held, known)
        if here is None:
            self._load(image, names, progress)
        else:
            for name in names:
                if name not in here.tags:
                    self._client.tell("tag", here.id, name)
        for one in held:
            if one.ours and one is not here and one.tags & set(names):
                self._drop(one.id)
        if here is not None:
            return here.id
        containerd = self._daemon().containerd
        return str(image.descriptor.digest if containerd else image.config.digest)

    def _load(self, image: Image, names: Collection[str], progress: Progress) -> None:
        if not self._daemon().containerd:  # which looks at files, and has no use for a part
            omit = self._present(image)
            if omit and self._loaded(image, names, omit, progress) is None:
                return
            # Something was removed meanwhile: once more, with everything
        complaint = self._loaded(image, names, frozenset(), progress)
        if complaint is not None:
            raise EngineError(
                f"docker could not load the image: {complaint}",
                hint="look at the space that `docker system df` shows",
            )

    def _loaded(
        self, image: Image, names: Collection[str], omit: Collection[Digest], progress: Progress
    ) -> str | None:
        """Load an image, streamed; return what Docker had against it."""
        from torchship.engines.loading import stream

        return stream(
            self._client.command("load", "--quiet"),
            store=self._store,
            image=image,
            names=tuple(Reference.parse(name) for name in names),
            omit=omit,
            progress=progress,
        )

    def _present(self, image: Image) -> frozenset[Digest]:
        """Return the layers that Docker has, by the longest start that any of its images shares.

        It knows a layer by its chain: itself and all that is below it (image-spec, config.md,
        "Layer ChainID"), so two images share a layer when they share every one up to it.
        """
        wanted = [str(layer.diff_id) for layer in image.layers]
        shared = max((_common(wanted, other) for other in self._stacks()), default=0)
        later = {layer.digest for layer in image.layers[shared:]}
        return frozenset(layer.digest for layer in image.layers[:shared]) - later

    def _stacks(self) -> Iterable[Sequence[str]]:
        images = list(dict.fromkeys(self._client.tell("image", "ls", "-q", "--no-trunc").split()))
        for start in range(0, len(images), _AT_ONCE):
            some = images[start : start + _AT_ONCE]
            answer = self._client.ask("image", "inspect", "--format={{json .RootFS.Layers}}", *some)
            for line in answer.out.splitlines():
                if line.strip():
                    yield json.loads(line) or ()

    def _drop(self, identity: str) -> None:
        """Remove an image of ours that has just lost its last name; one in use stays."""
        answer = self._client.ask(
            "image", "inspect", "--format=[{{json .RepoTags}},{{json .RepoDigests}}]", identity
        )
        if answer.status == 0 and not any(json.loads(answer.out)):
            self._client.leave("image", "rm", identity)

    # -- a run

    def _own_arguments(self, request: Request) -> tuple[str, ...]:
        words = list(docker_arguments(request.gpus))
        if self._daemon().init:
            # Without one the program is pid 1, which hears no signal that it does not ask for
            words.append("--init")
        if request.tty:
            words.append(f"--detach-keys={_UNUSED_KEYS}")
        return tuple(words)

    def _give_back(self, folder: Path) -> None:
        if sys.platform != "linux":
            return
        if os.geteuid() == 0:
            handover.take(folder)
        else:
            helper.chown(self._client, folder)

    def _until_now(self) -> str:
        return f"--until={moment(time.time())}"

    def _out_of_memory(self, request: Request, name: str, began: float) -> str | None:
        if not self.events(name, began, "oom"):
            return None
        limit = "the --memory it had" if request.memory is not None else "this machine has"
        return f"the program was killed: it needed more memory than {limit}"


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return length


def _elsewhere(address: str) -> Obstacle:
    return Obstacle(
        f"the Docker daemon is on another machine ({address}), which does not see this one's "
        "folders",
        f"{_OTHER}; or unset DOCKER_HOST, or `docker context use default`",
    )


def _unreachable(complaint: str) -> Obstacle:
    if "permission denied" in complaint.lower():
        return Obstacle(
            "you have no permission to use the Docker daemon's socket",
            f"an administrator can put you into the group docker; or {_OTHER}",
        )
    if "daemon running" in complaint or "connection refused" in complaint.lower():
        return Obstacle(
            "the Docker daemon is not running",
            f"start it, as with `sudo systemctl start docker` or Docker Desktop; or {_OTHER}",
        )
    lines = [line for line in complaint.splitlines() if line.strip()]
    return Obstacle(
        f"docker cannot be used: {lines[-1] if lines else 'it does not say why'}", _OTHER
    )
