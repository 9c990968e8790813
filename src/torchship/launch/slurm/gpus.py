"""NVIDIA's GPUs of a node in an OCI bundle, without NVIDIA's toolkit: by the driver's own files.

Slurm starts a node's container runtime without rights, so a hook could do no more than this: bind
the device nodes and the driver's libraries, as the native engine does. Which GPUs a job may use,
Slurm decides by control groups (``ConstrainDevices``, cgroup.conf(5)).
"""

from __future__ import annotations

import re
from pathlib import Path

from torchship.errors import EngineError
from torchship.launch.slurm.bundle import Bind

LIBRARIES = "/run/torchship-gpu"
"""A folder of the container with the driver's libraries and nothing else, so that it can stand
in LD_LIBRARY_PATH without hiding a library of the image."""

QUESTION = (
    "for node in /dev/nvidia[0-9]* /dev/nvidiactl /dev/nvidia-uvm; do "
    '[ -c "$node" ] && echo "device $node"; done; '
    "PATH=$PATH:/sbin:/usr/sbin ldconfig -p; true"
)
"""What a node is asked, in bash: its devices, and which file a library's name leads to."""

_DEVICE = re.compile(r"^device (/dev/nvidia[0-9a-z-]+)$", re.M)
_LIBRARY = re.compile(
    r"^\s*(lib(?:cuda|nvidia-(?:ml|ptxjitcompiler|nvvm|gpucomp|cfg|opencl))\.so[0-9.]*) "
    r"\(libc6,(?:x86-64|AArch64)[^)]*\) => (/\S+)$",
    re.M,
)


def binds(told: str) -> tuple[Bind, ...]:
    """Return what a container needs of what a node told; raise `EngineError` for one without.

    The nodes of a job are taken to be alike.
    """
    devices = _DEVICE.findall(told)
    libraries: dict[str, str] = {}
    for name, path in _LIBRARY.findall(told):
        libraries.setdefault(name, path)
    if not devices or not any(name.startswith("libcuda.so") for name in libraries):
        lacks = "device /dev/nvidia0" if not devices else "library libcuda.so.1"
        raise EngineError(
            f"the first node has no {lacks}: NVIDIA's driver is not there",
            hint="see whether `srun --gres=gpu:1 nvidia-smi` shows a GPU",
        )
    return (
        *(Bind(source=Path(path), target=path, device=True) for path in dict.fromkeys(devices)),
        *(
            Bind(source=Path(path), target=f"{LIBRARIES}/{name}", read_only=True)
            for name, path in libraries.items()
        ),
    )
