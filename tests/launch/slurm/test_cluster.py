"""Slurm as an engine, before anything is submitted."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.launch.test_job import IMAGE, REFERENCE, SHAPE

from torchship.engines.request import Request
from torchship.launch.slurm.cluster import Slurm
from torchship.oci.store import Store


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Give the one folder where programs are looked for, with those that any machine has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sh").symlink_to(shutil.which("sh"))
    monkeypatch.setenv("PATH", str(folder))
    return folder


def described(tmp_path) -> str:
    """Return what a dry run prints."""
    slurm = Slurm(REFERENCE, SHAPE, store=Store(tmp_path / "store"))
    image = replace(IMAGE, workdir="/")
    return slurm.description(Request(image=image, output=Path("out")))


@pytest.mark.parametrize("runtime", ["docker", "podman", "apptainer"])
def test_a_dry_run_prints_what_would_be_done_here(tmp_path, path, runtime):
    """What is found here runs the containers, and the image's pull is printed, too."""
    for name in ("sbatch", "scontrol", runtime):
        (path / name).write_text("#!/bin/sh\nexit 1\n")
        (path / name).chmod(0o755)
    text = described(tmp_path)
    pull = "apptainer exec docker://" if runtime == "apptainer" else f"{runtime} pull --quiet "
    assert f"{pull}{REFERENCE}" in text.partition("# --- step-1/node")[0]
    assert "--container=" not in text


@pytest.mark.usefixtures("path")
def test_a_dry_run_needs_no_cluster(tmp_path):
    """Elsewhere the job is printed as Slurm's own containers run it."""
    assert "--container=" in described(tmp_path)
