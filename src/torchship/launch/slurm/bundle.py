"""An OCI bundle: what ``srun --container`` gives to the nodes' container runtime.

Source: OCI runtime-spec v1.1, config.md and config-linux.md; Slurm's "Containers Guide": the
runtime is started by the job's user without rights, on the network of the node, and Slurm
replaces the arguments, the environment and the terminal of the configuration by the step's own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from torchship import canonical
from torchship.oci.image import Image

CONFIG = "config.json"
ROOTFS = "rootfs"

_SPECIFICATION = "1.0.2"
_SMALL = 64 << 20
"""Bytes of a working directory that every container may have a copy of, in memory."""
_CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER")

_NAMES = ("/etc/hosts", "/etc/resolv.conf")
"""Files of a node by which a program finds the other nodes, and itself: the name of the machine
is the node's as well, since gloo listens where that name leads to."""

PLACES = ("proc", "sys", "dev", "run", "tmp", "output")
"""Folders that something is mounted on."""

FILES = tuple(name.lstrip("/") for name in _NAMES)
"""Files that something is mounted on."""

_MASKED = (
    *("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
)
_READ_ONLY = ("/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys")


class Bind(Struct, frozen=True, kw_only=True):
    """A file, folder or device of the nodes that the container sees."""

    source: Path
    target: str
    read_only: bool = False
    device: bool = False


def config(image: Image, root: Path, binds: Sequence[Bind], *, shared_memory: int | None) -> bytes:
    """Return a bundle's configuration. ``root`` is the image's tree, the same on all nodes.

    The tree is shared and read-only; /tmp, the home and a small working directory are the
    container's own. Root inside is the job's user outside, so that outputs are the user's.
    """
    document = {
        "ociVersion": _SPECIFICATION,
        "root": {"path": ROOTFS, "readonly": True},
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": [],
            "cwd": "/",
            "capabilities": {
                kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")
            },
            "noNewPrivileges": True,
        },
        "mounts": [
            *_system(shared_memory),
            *_own(image, root),
            *(_bind(Bind(source=Path(name), target=name, read_only=True)) for name in _NAMES),
            *map(_bind, _ordered(binds)),
        ],
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": os.geteuid(), "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": os.getegid(), "size": 1}],
            "namespaces": [{"type": kind} for kind in ("user", "mount", "pid", "ipc")],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }
    return canonical.encode(document)


def _system(shared_memory: int | None) -> list[dict[str, Any]]:
    size = "50%" if shared_memory is None else str(shared_memory)
    return [
        _mount("proc", "/proc"),
        _mount("tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666"),
        _mount("tmpfs", "/dev/shm", "nosuid", "nodev", "mode=1777", f"size={size}"),  # noqa: S108 (the container's)
        _mount("mqueue", "/dev/mqueue", "nosuid", "noexec", "nodev"),
        {
            "destination": "/sys",
            "type": "none",
            "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
        },
        _mount("tmpfs", "/tmp", "nosuid", "nodev", "mode=1777"),  # noqa: S108 (the container's)
        _mount("tmpfs", "/run", "nosuid", "nodev", "mode=755"),
    ]


def _own(image: Image, root: Path) -> list[dict[str, Any]]:
    """Return what the program may write to besides its output: gone when it ends."""
    places = {image.workdir, image.environment.get("HOME", "/root")} - {"/"}
    return [
        _mount("tmpfs", place, "nosuid", "nodev", "mode=755", "tmpcopyup")
        for place in sorted(places)
        if writable(root, place)
    ]


def writable(root: Path, place: str) -> bool:
    """Tell whether a folder of the image is small enough for a copy in every container."""
    folder = root
    for part in place.strip("/").split("/"):
        folder /= part
        if part == ".." or folder.is_symlink() or not folder.is_dir():
            return False
    size = 0
    for parent, _, files in os.walk(folder):
        size += sum(Path(parent, name).lstat().st_size for name in files)
        if size > _SMALL:
            return False
    return True


def _ordered(binds: Sequence[Bind]) -> list[Bind]:
    return sorted(binds, key=lambda bind: bind.target.rstrip("/").count("/"))  # parents first


def _bind(bind: Bind) -> dict[str, Any]:
    return {
        "destination": bind.target,
        "type": "none",
        "source": str(bind.source),
        "options": [
            *("rbind", "nosuid", "ro" if bind.read_only else "rw"),
            *(() if bind.device else ("nodev",)),
        ],
    }


def _mount(kind: str, place: str, *options: str) -> dict[str, Any]:
    return {"destination": place, "type": kind, "source": kind, "options": list(options)}
