"""The CDI specification of a machine that has NVIDIA's driver and no container toolkit.

On clusters the driver is often all there is, and nobody who runs a job may install more. What
``nvidia-ctk cdi generate`` would write of the parts that computing needs can be seen without
it: every library of the driver carries the driver's version in its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from torchship.engines.cdi import Device, DeviceNode, Edits, Hook, Mount, Registry, Specification
from torchship.engines.nvidia import KIND, Machine
from torchship.platform import Platform

SOURCE = Path("the driver's files on this machine")
"""What messages name instead of a file."""

_FOLDERS = (
    "usr/lib/{triplet}",
    "usr/lib/{triplet}/nvidia/current",  # Debian's alternatives
    "usr/lib64",
    "usr/lib64/nvidia",
    "usr/lib",
    "usr/lib/nvidia",
)
_COMPUTE = (
    *("cuda", "cudadebugger", "nvidia-ml", "nvidia-ptxjitcompiler", "nvidia-nvvm"),
    *("nvidia-gpucomp", "nvidia-opencl", "nvidia-cfg", "nvidia-pkcs11", "nvidia-sandboxutils"),
)
_OPTIONS = ("ro", "nosuid", "nodev", "rbind", "rprivate")


def registry(machine: Machine, root: Path = Path("/")) -> Registry | None:
    """Return what the driver's own files come to; None where no ``libcuda`` of it is found."""
    libraries = tuple(_libraries(machine.driver, root)) if machine.driver else ()
    if not any(path.name.startswith("libcuda.so") for path in libraries) or not machine.gpus:
        return None
    nodes = [path for path in machine.nodes if path not in machine.gpus]
    common = Edits(
        device_nodes=tuple(_node(path, root) for path in nodes),
        mounts=tuple(_mount(path, root) for path in (*libraries, *_programs(root))),
        hooks=(
            Hook(
                hook_name="createContainer",
                path="/usr/bin/nvidia-cdi-hook",
                args=("nvidia-cdi-hook", "update-ldcache", *_searched(libraries, root)),
            ),
        ),
    )
    one = tuple(
        Device(name=str(number), container_edits=Edits(device_nodes=(_node(path, root),)))
        for number, path in enumerate(machine.gpus)
    )
    every = Device(
        name="all",
        container_edits=Edits(device_nodes=tuple(_node(path, root) for path in machine.gpus)),
    )
    return Registry.of(
        SOURCE,
        Specification(
            cdi_version="0.6.0", kind=KIND, devices=(*one, every), container_edits=common
        ),
    )


def _libraries(driver: str, root: Path) -> Iterator[Path]:
    seen = set()
    for pattern in _FOLDERS:
        folder = root / pattern.format(triplet=Platform.host().triplet)
        for name in _COMPUTE:
            path = folder / f"lib{name}.so.{driver}"
            # Some distributions link one of these folders to another
            if path.is_file() and name not in seen:
                seen.add(name)
                yield path


def _programs(root: Path) -> Iterator[Path]:
    path = root / "usr/bin/nvidia-smi"
    if os.access(path, os.X_OK):
        yield path


def _inside(path: Path, root: Path) -> str:
    return f"/{path.relative_to(root)}"


def _node(path: Path, root: Path) -> DeviceNode:
    return DeviceNode(path=_inside(path, root), host_path=str(path))


def _mount(path: Path, root: Path) -> Mount:
    return Mount(host_path=str(path), container_path=_inside(path, root), options=_OPTIONS)


def _searched(libraries: tuple[Path, ...], root: Path) -> tuple[str, ...]:
    folders = dict.fromkeys(_inside(path.parent, root) for path in libraries)
    return tuple(word for folder in folders for word in ("--folder", folder))
