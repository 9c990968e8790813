"""Which variant suits a machine: given machines, real and described."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchship.engines import gpu
from torchship.engines.gpu import Gpus
from torchship.engines.nvidia import Machine
from torchship.engines.variant import suited

VARIANTS = ("cpu", "cu118", "cu130", "cu126")
BARE = Machine()


def machine(driver: str | None) -> Machine:
    """Return a machine with a GPU, a driver and NVIDIA's container toolkit."""
    gpus = (Path("/dev/nvidia0"),)
    return Machine(driver=driver, gpus=gpus, runtime_hook=Path("/usr/bin/hook"))


@pytest.mark.parametrize(
    ("there", "asked", "taken"),
    [
        (BARE, "auto", "cpu"),
        (BARE, "none", "cpu"),
        (machine("580.65.06"), "auto", "cu130"),
        (machine("580.65.06"), "none", "cpu"),
        (machine("570.10"), "auto", "cu126"),
        (machine("470.10"), "auto", "cu118"),
        (machine("390.10"), "auto", "cpu"),
        (machine(None), "auto", "cu130"),
        (machine("570.10"), "all", "cu126"),
        # asked for, and not to be had: the engine says what is missing, of the humblest build
        (machine("390.10"), "all", "cu118"),
    ],
)
def test_the_newest_cuda_that_the_driver_runs(there, asked, taken):
    """CUDA where a GPU can be used and is not declined, else the CPU's build."""
    wish = Gpus.parse(asked)
    assert suited(VARIANTS, wish=wish, engine="docker", machine=there) == taken


@pytest.mark.parametrize("asked", ["auto", "all", "1"])
def test_a_driver_that_is_not_checked_runs_the_newest(asked):
    """The image brings what makes up for it, or so the user says."""
    wish, there = Gpus.parse(asked), machine("470.10")
    assert suited(VARIANTS, wish=wish, engine="docker", machine=there, checked=False) == "cu130"


def test_an_engine_that_cannot_pass_a_gpu_on_gets_the_cpus(monkeypatch):
    """A program that would run on the CPU needs no libraries of CUDA's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
    without = Machine(driver="580.65.06", gpus=(Path("/dev/nvidia0"),))
    if gpu.registry().names("nvidia.com/gpu"):
        pytest.skip("this machine has a CDI specification of its GPUs")
    assert suited(VARIANTS, wish=Gpus.parse("auto"), engine="docker", machine=without) == "cpu"


def test_without_a_cpu_build_the_first_is_taken():
    """A machine without a GPU still runs what there is."""
    wish = Gpus.parse("auto")
    assert suited(("cu130", "cu126"), wish=wish, engine="docker", machine=BARE) == "cu130"
    assert suited(("rocm6.4", "xpu"), wish=wish, engine="docker", machine=machine("580.1")) == (
        "rocm6.4"
    )
