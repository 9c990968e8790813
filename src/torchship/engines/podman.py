"""The podman engine: images run by Podman, as root or as an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
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
        held = self._holders((identity, *names))
        if identity not in held:
            self._pull(image, identity, progress)
        stale = []
        for name in names:
            holder = next((one for one, (tags, _) in held.items() if name in tags), None)
            if holder == identity:
                continue
            if holder is not None and not held[holder][1]:
                continue  # a name that somebody else's image has stays with it
            self._client.tell("tag", identity, name)
            stale += [holder] if holder is not None else []
        for one in stale:
            self._drop(one)
        return identity

    def _holders(self, names: tuple[str, ...]) -> dict[str, tuple[frozenset[str], bool]]:
        """Return the images that Podman holds of these: their names, and whether we made them."""
        line = "[{{json .ID}},{{json .RepoTags}},{{json .Labels}}]"
        found = {}
        for name in names:  # asked about several, Podman stops at the first that it has not
            answer = self._client.ask("image", "inspect", f"--format={line}", name)
            if answer.status == 0:
                identity, tags, labels = json.loads(answer.out)
                found[identity] = (frozenset(tags or ()), made_by_us(labels))
        return found

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
            tags = self._holders((identity,)).get(identity, (frozenset(), False))[0]
            for tag in tags:
                if str(layout).lstrip("/") in tag:
                    self._client.ask("untag", identity, tag)
        task.finish()

    def _drop(self, identity: str) -> None:
        """Remove an image of ours that has just lost its last name; one in use stays."""
        tags, _ = self._holders((identity,)).get(identity, (frozenset({"gone"}), False))
        if not tags:
            self._client.leave("image", "rm", identity)

    # -- a run

    def _own_arguments(self, request: Request) -> tuple[str, ...]:
        words = list(podman_arguments(request.gpus))
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
