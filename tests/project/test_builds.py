"""Builds of torch, told by names and versions alone."""

from __future__ import annotations

from collections import namedtuple

import pytest

from torchship.project import builds

Wheel = namedtuple("Wheel", ("name", "version"))


@pytest.mark.parametrize(
    ("wheels", "build"),
    [
        ("numpy 2.0", None),
        ("torch 2.13.0+cpu", "cpu"),
        ("torch 2.13.0+cu130, nvidia-cuda-runtime 12.8.90", "cu130"),
        ("torch 2.13.0, nvidia-cuda-runtime 13.0.96", "cu130"),
        ("nvidia-cuda-runtime-cu12 12.8.90, torch 2.7.0", "cu128"),
        ("torch 2.13.0+company.1, nvidia-cuda-runtime 13.2.1", "cu132"),
        ("torch 2.13.0, nvidia-cudnn-cu13 9.0", "cpu"),
        ("torch 1.12.0", ""),
    ],
)
def test_the_build_of_torch(wheels, build):
    """The local version says it; else the version of CUDA's runtime that goes with it."""
    assert builds.of_torch(Wheel(*text.split()) for text in wheels.split(", ")) == build


def test_names_of_builds():
    """What the settings take, and what they mean for people."""
    for name in ("auto", "cpu", "xpu", "cu118", "cu130", "rocm6.4"):
        assert builds.is_build(name)
    for name in ("", "gpu", "cuda", "CPU", "cu13.0", "cu1", "cpu\n", "13.0"):
        assert not builds.is_build(name)
    assert builds.cuda("cu118") == (11, 8)
    assert builds.cuda("cpu") is None
    assert builds.spoken("cu130") == "CUDA 13.0"
    assert builds.spoken("rocm6.4") == "rocm6.4"


def test_wheels_that_only_gpu_builds_bring():
    """By name: NVIDIA's, CUDA's and the kernels' compilers."""
    brought = ("nvidia-nvtx", "cuda-toolkit", "triton", "pytorch-triton-rocm")
    assert all(map(builds.is_accelerators, brought))
    assert not any(map(builds.is_accelerators, ("torch", "numpy", "cudality", "tritonclient")))
