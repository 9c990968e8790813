"""Which build of torch a set of wheels is: for the CPU, or for one version of CUDA.

PyTorch's own indexes say it in the local part of the version: ``2.13.0+cpu``, ``2.13.0+cu130``.
Other indexes carry one build without such a part; NVIDIA's libraries, which it asks for by exact
versions, then tell which.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

AUTO = "auto"
"""What stands for the build that the index gives."""

CPU = "cpu"

_NAME = re.compile(r"auto|cpu|xpu|cu[0-9]{2,3}|rocm[0-9]+(\.[0-9]+)*")
_RUNTIME = re.compile(r"nvidia-cuda-runtime(-cu[0-9]+)?")
_CUDA = re.compile(r"cu([0-9]{1,2})([0-9])")
_ACCELERATOR = re.compile(r"(nvidia|cuda|triton|pytorch-triton|intel|rocm)(-.*)?")


class Named(Protocol):
    """A wheel: pinned, or found on an index."""

    @property
    def name(self) -> str:
        """Its normalised name."""

    @property
    def version(self) -> str:
        """Its version."""


def is_build(text: str) -> bool:
    """Tell whether a text is what ``torch`` of [tool.torchship] takes: cpu, cu130, auto."""
    return _NAME.fullmatch(text) is not None


def of_torch(wheels: Iterable[Named]) -> str | None:
    """Return the build of torch among wheels that go together; None where torch is not there.

    A build without a local version that asks for nothing of NVIDIA's is the CPU's; before
    version 2, where wheels had CUDA within them, it could be any: the empty text.
    """
    found = {wheel.name: wheel.version for wheel in wheels}
    if "torch" not in found:
        return None
    local = found["torch"].partition("+")[2]
    if is_build(local):
        return local
    for name, version in sorted(found.items()):
        if _RUNTIME.fullmatch(name):
            return "cu" + "".join(version.split(".")[:2])
    return "" if found["torch"].startswith(("0.", "1.")) else CPU


def cuda(build: str) -> tuple[int, int] | None:
    """Return the version of CUDA that a build is for: (13, 0) for ``cu130``; else None."""
    match = _CUDA.fullmatch(build)
    return (int(match[1]), int(match[2])) if match else None


def spoken(build: str) -> str:
    """Say for people what a build is for: ``CUDA 13.0``."""
    version = cuda(build)
    return f"CUDA {version[0]}.{version[1]}" if version else build


def is_accelerators(name: str) -> bool:
    """Tell, by a distribution's normalised name, whether only GPU builds of torch bring it."""
    return _ACCELERATOR.fullmatch(name) is not None


def differing(variants: Sequence[tuple[str, Sequence[Named]]]) -> tuple[str, ...]:
    """Return the versions of torch that variants have, if they are not of one release."""
    versions = [
        wheel.version for _, wheels in variants for wheel in wheels if wheel.name == "torch"
    ]
    releases = {version.partition("+")[0] for version in versions}
    return tuple(dict.fromkeys(versions)) if len(releases) > 1 else ()
