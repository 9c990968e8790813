"""A machine with NVIDIA's driver and no toolkit, made of this machine's files."""

import os
import shutil
from pathlib import Path

import pytest

from torchship.engines import driver
from torchship.engines.gpu import Gpus
from torchship.engines.injection import LIBRARIES, inject
from torchship.engines.nvidia import KIND, survey
from torchship.platform import Platform

from .conftest import PYTHON, libraries, linux

pytestmark = linux


@pytest.fixture
def machine_root(tmp_path) -> Path:
    """Make the driver's files: two GPUs, and libraries that are others' in truth."""
    root = tmp_path / "machine"
    folder = root / f"usr/lib/{Platform.host().triplet}"
    for path in (root / "dev", root / "sys/module/nvidia", root / "usr/bin", folder):
        path.mkdir(parents=True)
    for name, node in (("nvidia0", "zero"), ("nvidia1", "full"), ("nvidiactl", "null")):
        (root / "dev" / name).symlink_to(f"/dev/{node}")
    (root / "sys/module/nvidia/version").write_text("580.65.06\n")
    library = next(path for path in libraries(Path(PYTHON)) if path.name.startswith("libz.so"))
    for name in ("libcuda.so.580.65.06", "libnvidia-ml.so.575.57.08"):
        shutil.copy(library, folder / name)
    smi = root / "usr/bin/nvidia-smi"
    smi.write_text("#!/bin/bash\necho two GPUs\n")
    smi.chmod(0o755)
    return root


def found(root: Path):
    """Return the registry of a machine."""
    return driver.registry(survey(root, {"PATH": "/nowhere"}), root)


def test_the_drivers_own_files_are_as_good_as_a_specification(machine_root, sandbox):
    """Nodes, libraries by their short names, and nvidia-smi, in a real container."""
    registry = found(machine_root)
    injected = inject(registry.edits(KIND, Gpus.parse("all").named(registry)))
    result = sandbox(
        "bash",
        "-c",
        "ls /dev/nvidia*; nvidia-smi; "
        "python3 -I -S -c \"import ctypes; ctypes.CDLL('libz.so.1').zlibVersion;"
        "print('580.65.06' in open('/proc/self/maps').read())\"",
        binds=injected.binds,
        devices=injected.devices,
        links=injected.links,
        environment={"LD_LIBRARY_PATH": LIBRARIES},
    )
    assert result.out == "/dev/nvidia0\n/dev/nvidia1\n/dev/nvidiactl\ntwo GPUs\nTrue\n", result.err


def test_one_gpu_leaves_the_others_out(machine_root):
    """With the nodes that every one of them needs."""
    registry = found(machine_root)
    injected = inject(registry.edits(KIND, Gpus.parse("device=1").named(registry)))
    assert [node.target for node in injected.devices] == ["/dev/nvidiactl", "/dev/nvidia1"]


def test_only_libraries_of_the_loaded_driver_are_taken(machine_root):
    """Others were left behind by an update."""
    registry = found(machine_root)
    injected = inject(registry.edits(KIND, ["0"]))
    assert [bind.source.name for bind in injected.binds] == ["libcuda.so.580.65.06", "nvidia-smi"]


@pytest.mark.parametrize("lost", ["sys/module/nvidia/version", "dev/nvidia0"])
def test_a_machine_without_driver_or_gpu_has_no_specification(machine_root, lost):
    """Nor one whose libcuda is of another version."""
    (machine_root / lost).unlink()
    (machine_root / "dev/nvidia1").unlink()
    assert found(machine_root) is None


def test_a_machine_without_the_drivers_libraries_has_no_specification(machine_root):
    """The kernel's part alone is of no use."""
    folder = machine_root / f"usr/lib/{Platform.host().triplet}"
    (folder / "libcuda.so.580.65.06").rename(folder / "libcuda.so.575.57.08")
    assert found(machine_root) is None
    assert os.listdir(folder)  # noqa: PTH208 (there are others)
