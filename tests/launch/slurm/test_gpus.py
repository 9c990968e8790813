"""NVIDIA's GPUs of a node, by the driver's own files."""

import subprocess
from pathlib import Path

import pytest

from torchship.errors import EngineError
from torchship.launch.slurm.bundle import Bind
from torchship.launch.slurm.gpus import LIBRARIES, QUESTION, binds

# As `ldconfig -p` of Debian and of Rocky Linux write it; the 32-bit ones come from Steam
TOLD = """\
device /dev/nvidia0
device /dev/nvidia1
device /dev/nvidiactl
1204 libs found in cache `/etc/ld.so.cache'
\tlibnvidia-ml.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libnvidia-ml.so.1
\tlibcuda.so.1 (libc6) => /lib/i386-linux-gnu/libcuda.so.1
\tlibcuda.so.1 (libc6,x86-64, OS ABI: Linux 4.4.0) => /lib64/libcuda.so.1
\tlibcuda.so (libc6,x86-64) => /lib64/libcuda.so
\tlibcudart.so.12 (libc6,x86-64) => /usr/local/cuda/lib64/libcudart.so.12
\tlibnvidia-gpucomp.so.580.65.06 (libc6,x86-64) => /lib64/libnvidia-gpucomp.so.580.65.06
"""


def test_devices_and_the_drivers_libraries_are_bound():
    """Devices at their own place, libraries by the names that programs load; nothing else."""
    found = binds(TOLD)
    assert [bind.target for bind in found if bind.device] == [
        *("/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl")
    ]
    assert {bind.target: str(bind.source) for bind in found if not bind.device} == {
        f"{LIBRARIES}/libnvidia-ml.so.1": "/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
        f"{LIBRARIES}/libcuda.so.1": "/lib64/libcuda.so.1",
        f"{LIBRARIES}/libcuda.so": "/lib64/libcuda.so",
        f"{LIBRARIES}/libnvidia-gpucomp.so.580.65.06": "/lib64/libnvidia-gpucomp.so.580.65.06",
    }
    assert Bind(source=Path("/dev/nvidia0"), target="/dev/nvidia0", device=True) in found


@pytest.mark.parametrize(
    ("told", "lacks"),
    [
        (TOLD.replace("device ", "no "), "no device /dev/nvidia0"),
        (TOLD.replace("libcuda.so", "libother.so"), "no library libcuda.so.1"),
        ("", "no device"),
    ],
)
def test_a_node_without_a_driver_is_told(told, lacks):
    """What the node lacks is named, before a program fails for want of it."""
    with pytest.raises(EngineError, match=lacks):
        binds(told)


def test_the_question_is_bash():
    """A node without GPUs answers it, too."""
    done = subprocess.run(["bash", "-c", QUESTION], capture_output=True, text=True, check=True)
    assert " => /" in done.stdout
