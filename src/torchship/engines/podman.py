"""The podman engine: images run by Podman, as root or as an ordinary user."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from torchship import canonical
from torchship.engines import handover
from torchship.engines.commandline import CommandLineEngine, made_by_us
from torchship.engines.gpu import podman_arguments
from torchship.engines.namespaces import Obstacle
from torchship.engines.request import Request
from torchship.errors import EngineError
from torchship.oci import mediatypes
from torchship.oci.image import Image
from torchship.oci.index import LAYOUT
from torchship.progress import Progress

_OTHER = "use --engine native, which needs no container engine"
_ANSWER = 10  # seconds
_INITS = (
    *("/usr/libexec/podman/catatonit", "/usr/lib/podman/catatonit", "/usr/bin/catatonit"),
    *("/usr/bin/docker-init", "/usr/libexec/docker/docker-init", "/usr/bin/tini-static"),
)
"""Static programs that can be a container's pid 1, wherever packages put them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """An image that Podman holds."""

    id: str
    tags: frozenset[str]
    ours: bool


class Podman(CommandLineEngine):
    """Runs images by ``podman run``."""

    name = "podman"
    _found: Obstacle | bool | None = None

    def missing(self) -> str | None:
        """Say why Podman cannot be used; None where it can. Takes about 0.1 s."""
        found = self._look()
        return found.reason if isinstance(found, Obstacle) else None

    def _require(self) -> None:
        found = self._look()
        if isinstance(found, Obstacle):
            raise EngineError(found.reason, hint=found.hint)

    def _rootless(self) -> bool:
        return os.geteuid() != 0

    def _look(self) -> Obstacle | bool:
        if self._found is None:
            self._found = self._examine() or True
        return self._found

    def _examine(self) -> Obstacle | None:
        if not self._client.installed:
            return Obstacle("podman is not installed", _OTHER)
        address = os.environ.get("CONTAINER_HOST")
        if address or sys.platform != "linux":
            where = address or "a virtual machine"
            return Obstacle(
                f"Podman runs on another machine ({where}), which does not see this one's images",
                _OTHER,
            )
        # It opens the storage and, for an ordinary user, makes the user namespace
        try:
            answer = self._client.ask("ps", "--quiet", patience=_ANSWER)
        except EngineError as error:
            return Obstacle(error.message, error.hint or _OTHER)
        if answer.status != 0:
            return Obstacle(
                f"podman cannot be used: {answer.complaint}", f"see `podman info`; or {_OTHER}"
            )
        return None

    # -- bringing an image in

    def _bring(self, image: Image, progress: Progress) -> str:
        identity = image.config.digest.hex
        names = self._names(image)
        held = self._inspect((identity, *names))
        if not any(one.id == identity for one in held):
            self._pull(image, identity, progress)
        # A name that somebody else's image has in Podman stays with it
        foreign = {tag for one in held if one.id != identity and not one.ours for tag in one.tags}
        names = tuple(name for name in names if name not in foreign)
        # An image without any name would be one of many that nobody knows
        names = names or (f"localhost/torchship:{image.descriptor.digest.short}",)
        present = {tag for one in held if one.id == identity for tag in one.tags}
        if not present.issuperset(names):
            self._client.tell("tag", identity, *names)
        for one in held:
            if one.id != identity and one.ours and not one.tags - set(names):
                # It has just lost its last name. One in use stays.
                self._client.leave("image", "rm", one.id)
        return identity

    def _inspect(self, names: tuple[str, ...]) -> tuple[_Held, ...]:
        """Return the images that Podman holds of these, each once."""
        line = "[{{json .ID}},{{json .RepoTags}},{{json .Labels}}]"
        answer = self._client.ask("image", "inspect", f"--format={line}", *names)
        found = {}
        for text in answer.out.splitlines():
            if text.startswith("["):
                identity, tags, labels = json.loads(text)
                ours = made_by_us(labels)
                found[identity] = _Held(id=identity, tags=frozenset(tags or ()), ours=ours)
        return tuple(found.values())

    def _pull(self, image: Image, identity: str, progress: Progress) -> None:
        """Let Podman read the image out of the store: it takes the layers that it has not.

        It reads a layout of this image alone, with the store's own blobs, so that neither names
        nor what else the store holds matters. The name that Podman gives it goes again.
        """
        task = progress.task("loading the image into podman", image.size)
        with tempfile.TemporaryDirectory(prefix="torchship-") as folder:
            layout = Path(folder, "image")
            layout.mkdir()
            (layout / "oci-layout").write_bytes(LAYOUT)
            entry = replace(image.descriptor, annotations={}, platform=image.platform.as_json())
            index = {
                "schemaVersion": 2,
                "mediaType": mediatypes.OCI_INDEX,
                "manifests": [entry.as_json()],
            }
            (layout / "index.json").write_bytes(canonical.encode(index))
            (layout / "blobs").symlink_to(self._store.oci / "blobs")
            answer = self._client.ask(
                "pull", "--quiet", f"--platform={image.platform}", f"oci:{layout}", patience=None
            )
            if answer.status != 0:
                raise EngineError(
                    f"podman could not load the image: {answer.complaint}",
                    hint=f"see whether `podman pull oci:{self._store.oci}` says more",
                )
            self._client.tell("untag", identity)
        task.finish()

    # -- a run

    def _own_arguments(self, request: Request) -> tuple[str, ...]:
        words = [*podman_arguments(request.gpus), *_limits()]
        init = next((path for path in _INITS if os.access(path, os.X_OK)), None)
        init = init or shutil.which("catatonit")
        if init is not None:
            # Without one the program is pid 1, which hears no signal that it does not ask for
            words += ["--init", f"--init-path={init}"]
        if request.tty:
            words.append("--detach-keys=")
        return tuple(words)

    def _give_back(self, folder: Path) -> None:
        handover.take(folder)  # only root's Podman lets other users write

    def _until_now(self) -> str:
        return "--stream=false"

    def _out_of_memory(self, request: Request, name: str, began: float) -> str | None:  # noqa: ARG002
        if request.memory is None:
            return None  # Podman forgets why a container ended when it is gone
        return "the program was killed: it probably needed more memory than the --memory it had"


def _limits() -> tuple[str, ...]:
    """Ask for no more open files and processes than this process may have.

    Podman as root asks for a million, which root inside a container has no right to give.
    """
    words = []
    for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        most = resource.getrlimit(number)[1]
        if most != resource.RLIM_INFINITY:
            words.append(f"--ulimit={name}={most}:{most}")
    return tuple(words)
