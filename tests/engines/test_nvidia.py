"""What a machine has of NVIDIA's, from trees that look like one."""

import pytest

from torchship.engines import nvidia
from torchship.engines.nvidia import Machine, check_driver, oldest_driver, survey
from torchship.errors import EngineError

PROPRIETARY = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
)
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs)\n"
    "GCC version:  gcc version 13.3.0\n"
)


@pytest.fixture
def tree(tmp_path):
    """Make files of a machine; return its root."""

    def make(files, programs=()):
        for name, content in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (tmp_path / "bin").mkdir()
        for name, content in dict(programs).items():
            (tmp_path / "bin" / name).write_text(content)
            (tmp_path / "bin" / name).chmod(0o755)
        return {"root": tmp_path / "root", "environment": {"PATH": str(tmp_path / "bin")}}

    return make


def test_a_machine_without_a_gpu_has_nothing(tree):
    """And no process is started to find out: nvidia-smi would leave a trace."""
    asked = {"nvidia-smi": "#!/bin/sh\ntouch $(dirname $0)/asked\necho 580.65.06\n"}
    place = tree({"dev/null": ""}, asked)
    assert survey(**place) == Machine()
    assert not (place["root"].parent / "bin" / "asked").exists()


@pytest.mark.parametrize(
    ("file", "said", "version"),
    [
        ("proc/driver/nvidia/version", PROPRIETARY, "535.104.05"),
        ("proc/driver/nvidia/version", OPEN, "580.65.06"),
        ("sys/module/nvidia/version", "570.86\n", "570.86"),
    ],
)
def test_the_driver_tells_its_version_in_a_file(tree, file, said, version):
    """Of the proprietary and the open kernel module, with two or three numbers."""
    assert survey(**tree({file: said})).driver == version


def test_gpus_stand_in_the_order_of_their_numbers(tree):
    """With the nodes that every one of them needs."""
    names = ("nvidia10", "nvidia2", "nvidia0", "nvidiactl", "nvidia-uvm", "nvidiaX", "null")
    found = survey(**tree({f"dev/{name}": "" for name in names}))
    assert [path.name for path in found.gpus] == ["nvidia0", "nvidia2", "nvidia10"]
    assert [path.name for path in found.nodes[3:]] == ["nvidiactl", "nvidia-uvm"]


def test_under_windows_the_driver_is_asked_by_nvidia_smi(tree):
    """There is one node for all GPUs, and no file that tells the version."""
    asked = {"nvidia-smi": "#!/bin/sh\necho 581.80\n"}
    found = survey(**tree({"dev/dxg": ""}, asked))
    assert ([path.name for path in found.gpus], found.driver) == (["dxg"], "581.80")


def test_an_nvidia_smi_that_fails_tells_no_version(tree):
    """What it prints then is no version."""
    failing = {"nvidia-smi": "#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n"}
    assert survey(**tree({"dev/nvidia0": ""}, failing)).driver is None


def test_the_toolkits_programs_are_found_on_the_path(tree):
    """Each for itself: packages install some of them."""
    programs = {"nvidia-ctk": "#!/bin/sh\n", "nvidia-cdi-hook": "#!/bin/sh\n"}
    found = survey(**tree({"dev/null": ""}, programs))
    assert found.ctk is not None
    assert found.cdi_hook is not None
    assert found.runtime_hook is None


@pytest.mark.parametrize(
    ("cuda", "driver"),
    [
        ("11.8", "450.80.02"),
        ("12.0", "525.60.13"),
        ("12.9", "525.60.13"),
        ("13.0", "580.65.06"),
        ("10.2", None),
        ("14.0", None),
    ],
)
def test_each_major_version_of_cuda_needs_a_driver(cuda, driver):
    """Minor versions need no more; of versions that are not known nothing is claimed."""
    assert oldest_driver(cuda) == driver


@pytest.mark.parametrize("driver", ["525.60.13", "525.147.05", "580.65.06", "615.71", None])
def test_a_driver_that_is_new_enough_is_fine(driver):
    """So is one that does not say its version: the program will tell."""
    check_driver("12.8", Machine(driver=driver))
    check_driver(None, Machine(driver=driver))


def test_a_driver_that_is_too_old_is_told_with_what_to_do():
    """Both versions, and the CUDA that the driver does run."""
    with pytest.raises(EngineError) as caught:
        check_driver("13.0", Machine(driver="535.104.05"))
    assert caught.value.message == (
        "the image has CUDA 13.0, which needs NVIDIA driver 580.65.06 or later, "
        "and this machine has 535.104.05"
    )
    assert "build the image for CUDA 12 or older" in caught.value.hint
    with pytest.raises(EngineError) as caught:
        check_driver("11.8", Machine(driver="390.157"))
    assert "build the image" not in caught.value.hint


def test_versions_are_compared_as_numbers():
    """99 is less than 100."""
    with pytest.raises(EngineError):
        check_driver("12.4", Machine(driver="525.9.99"))


def test_the_table_of_drivers_is_in_order():
    """A later CUDA never needs an older driver."""
    versions = [nvidia._numbers(oldest_driver(f"{major}.0") or "") for major in (11, 12, 13)]
    assert versions == sorted(versions)
