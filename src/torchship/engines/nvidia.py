"""NVIDIA's driver and container toolkit: what a machine has, and what CUDA needs of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from torchship.errors import EngineError

KIND = "nvidia.com/gpu"
"""What CDI specifications of NVIDIA's GPUs are filed under."""

GENERATE = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
"""What writes the CDI specification of a machine's GPUs."""

INSTALL = "install the NVIDIA Container Toolkit (package nvidia-container-toolkit)"

UNCHECKED = "NVIDIA_DISABLE_REQUIRE"
"""Variable that NVIDIA's own runtime knows: the driver is then taken for new enough, as it is
for an image that brings CUDA's forward compatibility libraries."""

_OLDEST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
"""The oldest driver for each major version of CUDA, by minor-version compatibility.

Source: CUDA Toolkit Release Notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA
Minor Version Compatibility" (11.x and 12.x); of CUDA 13.0, the driver that came with it.
"""

_VERSION = re.compile(r"\b\d{3,4}\.\d{1,3}(?:\.\d{1,3})?\b")
_GPU = re.compile(r"nvidia\d+")
_OTHERS = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
_WSL = "dxg"
"""Windows' GPUs, as Linux on Windows sees them."""


class Machine(Struct, frozen=True, kw_only=True):
    """What there is. ``gpus`` are the nodes of GPUs, ``nodes`` those and the driver's others.

    ``driver`` is its version, None where it does not say; ``runtime_hook``, ``cdi_hook`` and
    ``ctk`` are the toolkit's programs.
    """

    driver: str | None = None
    gpus: tuple[Path, ...] = ()
    nodes: tuple[Path, ...] = ()
    runtime_hook: Path | None = None
    cdi_hook: Path | None = None
    ctk: Path | None = None


def survey(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> Machine:
    """Look at a machine, without starting a process where it has no GPU."""
    names = _listed(root / "dev")
    gpus = [name for name in names if _GPU.fullmatch(name)]
    gpus.sort(key=lambda name: int(name.removeprefix("nvidia")))
    if not gpus and _WSL in names:
        gpus = [_WSL]
    path = environment.get("PATH", os.defpath)
    return Machine(
        driver=_driver(root, path, bool(gpus)),
        gpus=tuple(root / "dev" / name for name in gpus),
        nodes=tuple(root / "dev" / name for name in (*gpus, *_OTHERS) if name in names),
        runtime_hook=_program("nvidia-container-runtime-hook", path),
        cdi_hook=_program("nvidia-cdi-hook", path),
        ctk=_program("nvidia-ctk", path),
    )


def oldest_driver(cuda: str) -> str | None:
    """Return the oldest driver that runs programs made for a version of CUDA; None: not known."""
    return _OLDEST_DRIVER.get(int(cuda.partition(".")[0]))


def newest_cuda(driver: str) -> int | None:
    """Return the newest major version of CUDA that a driver runs; None: not one that is known."""
    found = [major for major, oldest in _OLDEST_DRIVER.items() if not _older(driver, oldest)]
    return max(found, default=None)


def check_driver(cuda: str | None, machine: Machine) -> None:
    """Raise `EngineError` where the driver is older than an image's CUDA needs."""
    oldest = oldest_driver(cuda) if cuda else None
    if oldest is None or machine.driver is None or not _older(machine.driver, oldest):
        return
    newest = newest_cuda(machine.driver)
    other = f"build the image for CUDA {newest} or older, " if newest else ""
    raise EngineError(
        f"the image has CUDA {cuda}, which needs NVIDIA driver {oldest} or later, "
        f"and this machine has {machine.driver}",
        hint=f"update the driver, {other}or run on the CPU with --gpus none "
        f"(-e {UNCHECKED}=1 where the image brings its own forward compatibility libraries)",
    )


def _older(one: str, other: str) -> bool:
    return _numbers(one) < _numbers(other)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _driver(root: Path, path: str, has_gpus: bool) -> str | None:
    for place in ("sys/module/nvidia/version", "proc/driver/nvidia/version"):
        try:
            said = (root / place).read_text()
        except OSError:
            continue
        if found := _VERSION.search(said):
            return found[0]
    return _asked(path) if has_gpus else None


def _asked(path: str) -> str | None:
    """Ask nvidia-smi: under Windows' Linux the driver is in no file."""
    program = _program("nvidia-smi", path) or Path("/usr/lib/wsl/lib/nvidia-smi")
    try:
        said = subprocess.run(
            (program, "--query-gpu=driver_version", "--format=csv,noheader"),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(said)
    return found[0] if found else None


def _program(name: str, path: str) -> Path | None:
    found = shutil.which(name, path=f"{path}:/usr/bin:/usr/local/bin")
    return Path(found) if found else None


def _listed(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 (names, not paths)
    except OSError:
        return frozenset()
