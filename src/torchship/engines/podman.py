"""The podman engine: images run by Podman, as root or as an ordinary user."""

from __future__ import annotations

import math
import os
import resource
import secrets
import shutil
import sys
import tempfile
from functools import cached_property
from pathlib import Path

from msgspec.structs import replace

from torchship import canonical
from torchship.engines import handover
from torchship.engines.commandline import CommandLineEngine
from torchship.engines.gpu import podman_arguments
from torchship.engines.held import free
from torchship.engines.namespaces import Obstacle
from torchship.engines.request import Request
from torchship.errors import EngineError
from torchship.oci import mediatypes
from torchship.oci.image import Image
from torchship.oci.index import LAYOUT
from torchship.progress import Progress

_OTHER = "use --engine native, which needs no container engine"
_ANSWER = 10  # seconds
_PROCESSES = 32768  # Podman's default, as `podman run --help` says
_MAPS = ("/proc/self/uid_map", "/proc/self/gid_map")
_SECOND_VERSION = Path("/sys/fs/cgroup/unified/cgroup.controllers")  # beside the first: hybrid
_INITS = (
    *("/usr/libexec/podman/catatonit", "/usr/lib/podman/catatonit", "/usr/bin/catatonit"),
    *("/usr/bin/docker-init", "/usr/libexec/docker/docker-init", "/usr/bin/tini-static"),
)
"""Static programs that can be a container's pid 1, wherever packages put them."""


class Podman(CommandLineEngine):
    """Runs images by ``podman run``."""

    name = "podman"
    inspection = "[{{json .ID}},{{json .RepoTags}},{{json .Labels}}]"

    def _rootless(self) -> bool:
        return os.geteuid() != 0

    def _obstacle(self) -> Obstacle | None:
        return self._looked

    @cached_property
    def _looked(self) -> Obstacle | None:
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
        questions: tuple[tuple[str, ...], ...] = (("ps", "--quiet"),)
        if self._rootless():
            questions += (("unshare", "cat", *_MAPS),)
        try:
            for question in questions:
                answer = self._client.ask(*question, patience=_ANSWER)
                if answer.status != 0:
                    return Obstacle(
                        f"podman cannot be used: {answer.complaint}",
                        f"see `podman info`; or {_OTHER}",
                    )
            mixed = self._mixed_groups()
        except EngineError as error:
            return Obstacle(error.message, error.hint or _OTHER)
        return mixed or (_ids(answer.out) if self._rootless() else None)

    def _mixed_groups(self) -> Obstacle | None:
        """Say where Podman's runtime is crun, and both versions of control groups have controllers.

        crun runs nothing there: "cgroups in hybrid mode not supported, drop all controllers from
        cgroupv2" (libcrun/cgroup.c). That shows only when a container is started.
        """
        if not _SECOND_VERSION.is_file() or not _SECOND_VERSION.read_text().strip():
            return None
        runtime = self._client.ask("info", "--format={{.Host.OCIRuntime.Name}}", patience=_ANSWER)
        if runtime.out.strip() != "crun":
            return None
        return Obstacle(
            "podman's runtime, crun, runs nothing where both versions of control groups are in use",
            f'write runtime = "runc" below [engine] in containers.conf; or {_OTHER}',
        )

    # -- bringing an image in

    def _bring(self, image: Image, progress: Progress) -> str:
        identity = image.config.digest.hex
        names = self._names(image)
        held = self._held((identity, *names))
        if not any(one.id == identity for one in held):
            self._pull(image, identity, progress)
        names = free(names, image, held, {identity})
        present = {tag for one in held if one.id == identity for tag in one.tags}
        if not present.issuperset(names):
            self._client.tell("tag", identity, *names)
        for one in held:
            if one.id != identity and one.ours and not one.tags - set(names):
                # It has just lost its last name. One in use stays.
                self._client.leave("image", "rm", one.id)
        return identity

    def _pull(self, image: Image, identity: str, progress: Progress) -> None:
        """Let Podman read the image out of the store: it takes the layers that it has not.

        It reads a layout of this image alone, with the store's own blobs, so that neither names
        nor what else the store holds matters. The name that Podman gives it goes again.
        """
        task = progress.task("loading the image into podman", image.size)
        with tempfile.TemporaryDirectory(prefix="torchship-") as folder:
            # Podman makes a name of the path, which may be none: it has capitals, ends in "_"
            name = f"torchship-{secrets.token_hex(6)}"
            layout = Path(folder, name)
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
                *("pull", "--quiet", f"--platform={image.platform}", f"oci:{name}"),
                patience=None,
                folder=Path(folder),
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


def _ids(maps: str) -> Obstacle | None:
    """Read /proc/self/{uid,gid}_map (user_namespaces(7)): an image has files of several users."""
    if any(line.split()[2:] != ["1"] for line in maps.splitlines()):
        return None
    return Obstacle(
        "podman has no subordinate user ids for this user, and images need more than one",
        "an administrator can give some with `usermod --add-subuids 100000-165535 "
        "--add-subgids 100000-165535 USER` (/etc/subuid, /etc/subgid; then `podman system "
        f"migrate`); or {_OTHER}",
    )


def _limits() -> tuple[str, ...]:
    """Ask for no more open files and processes than this process may have.

    Podman as root asks for a million, which root inside a container has no right to give. Of
    processes it keeps `_PROCESSES` for itself, and can give no more.
    """
    words = []
    for name, number, own in (
        ("nofile", resource.RLIMIT_NOFILE, math.inf),
        ("nproc", resource.RLIMIT_NPROC, _PROCESSES),
    ):
        most = resource.getrlimit(number)[1]
        if most != resource.RLIM_INFINITY:
            words.append(f"--ulimit={name}={min(most, own)}:{min(most, own)}")
    return tuple(words)
