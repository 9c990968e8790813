"""What `doctor` finds, and how each lack is mended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from torchship import health
from torchship.engines.nvidia import Machine
from torchship.oci.store import Store


@pytest.fixture
def findings(tmp_path, monkeypatch):
    """Examine a machine whose store is in a folder that is not there yet."""
    monkeypatch.delenv("TORCHSHIP_MIRRORS", raising=False)

    def examine(home=tmp_path / "not" / "there"):
        return {found.subject: found for found in health.examine(Store.open(home))}

    return examine


def test_a_store_that_is_not_there_yet(findings, tmp_path):
    """Its disk is looked at, and nothing is made."""
    assert findings()["store"].fix is None
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small(findings, monkeypatch):
    """What an image takes is told."""
    monkeypatch.setattr(health, "ENOUGH", 10**18)
    assert "free some space" in findings()["store"].fix


def test_a_store_that_cannot_be_written(findings, monkeypatch):
    """The folder is named, and the variable that names another."""
    monkeypatch.setattr(health.os, "access", lambda *_: False)
    assert "TORCHSHIP_HOME" in findings()["store"].fix


def test_programs_that_are_missing_are_no_fault(findings, monkeypatch):
    """Docker and Podman are not needed; without apt-get locks cannot be made for debian:..."""
    monkeypatch.setenv("PATH", "/nowhere")
    found = findings()
    assert found["docker"].fix is None and "not installed" in found["docker"].state
    assert not found["docker"].usable and not found["podman"].usable
    assert "python:3.11-slim" in found["debian packages"].fix


def test_mirrors(findings, monkeypatch, tmp_path):
    """Folders that are named are looked for; one that is not there is told."""
    assert findings()["mirrors"].fix is None
    monkeypatch.setenv("TORCHSHIP_MIRRORS", str(tmp_path))
    assert findings()["mirrors"].state == str(tmp_path)
    monkeypatch.setenv("TORCHSHIP_MIRRORS", "/nowhere")
    assert "TORCHSHIP_MIRRORS" in findings()["mirrors"].fix


def test_an_architecture_without_images_hides_nothing_else(findings, monkeypatch):
    """It is told as the one fault that it is."""
    other = os.uname_result(("Linux", "here", "6.1.0", "#1", "riscv64"))
    monkeypatch.setattr("torchship.platform.os.uname", lambda: other)
    found = findings()
    assert "not supported" in found["python"].state
    assert "store" in found


@pytest.fixture
def gpu_findings(tmp_path, monkeypatch):
    """Look at a machine's GPUs, with the CDI specifications of a folder."""
    (tmp_path / "cdi").mkdir()
    monkeypatch.setenv("TORCHSHIP_CDI_DIRS", str(tmp_path / "cdi"))

    def examine(**machine):
        return {found.subject: found for found in health._gpus(Machine(**machine))}

    return examine


GPUS = {"driver": "580.65.06", "gpus": (Path("/dev/nvidia0"), Path("/dev/nvidia1"))}


def test_a_machine_without_a_gpu_is_one_line_and_no_fault(gpu_findings):
    """Most machines are."""
    assert gpu_findings() == {
        "gpu": health.Finding(subject="gpu", state="no NVIDIA GPU; programs run on the CPU")
    }


def test_a_gpu_without_the_toolkit(gpu_findings):
    """What each engine lacks, and the fix."""
    found = gpu_findings(**GPUS)
    assert found["gpu"].state == (
        "/dev/nvidia0, /dev/nvidia1; driver 580.65.06 runs images of CUDA 13 and older"
    )
    assert found["container toolkit"].state == "not installed"
    assert "nvidia-ctk runtime configure" in found["gpus on docker"].fix
    assert "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml" in found["gpus on podman"].fix
    assert found["gpus on native"].fix


def test_a_gpu_with_its_specification(gpu_findings, tmp_path):
    """Files and devices are named, and every engine can."""
    (tmp_path / "cdi" / "nvidia.yaml").write_text(
        "{cdiVersion: 0.6.0, kind: nvidia.com/gpu, devices: "
        '[{name: "0", containerEdits: {deviceNodes: [{path: /dev/null}]}}]}'
    )
    found = gpu_findings(**GPUS)
    assert found["cdi"].state == f"{tmp_path}/cdi/nvidia.yaml: nvidia.com/gpu=0"
    for engine in ("docker", "podman", "native"):
        assert found[f"gpus on {engine}"] == health.Finding(
            subject=f"gpus on {engine}", state="can be passed on"
        )


def test_a_broken_specification_is_told_on_any_machine(gpu_findings, tmp_path):
    """With its file, the field, and how to write it anew."""
    (tmp_path / "cdi" / "nvidia.yaml").write_text("{cdiVersion: 0.6.0, kind: gpu, devices: []}")
    found = gpu_findings()["cdi"]
    assert found.state.startswith(f"{tmp_path}/cdi/nvidia.yaml: kind: ")
    assert "nvidia-ctk cdi generate" in found.fix


def test_drivers_that_cannot_be_used(gpu_findings):
    """Too old for any CUDA, silent, or without a GPU."""
    assert gpu_findings(driver="390.157", gpus=GPUS["gpus"])["gpu"].fix == "update the driver"
    assert "nvidia-smi" in gpu_findings(gpus=GPUS["gpus"])["gpu"].fix
    assert "nvidia-modprobe" in gpu_findings(driver="580.65.06")["gpu"].fix
