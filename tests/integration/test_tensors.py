"""The tensors of a real torch: two archives of the same weights are the same output."""

import subprocess
import sys

import pytest

from torchship.runs import publishing
from torchship.runs.judgement import Level
from torchship.runs.verdict import compare

pytestmark = [pytest.mark.network, pytest.mark.slow]

# torch.save names the archive after its file, so that no two of these have the same bytes
PROGRAM = """
import json, os, shutil, sys, uuid
import torch
torch.manual_seed(int(sys.argv[1].partition("=")[2]))
weights = torch.nn.Linear(3, 4).state_dict()
path = f"/tmp/{uuid.uuid4()}.pt"
torch.save({"model": weights, "epoch": 1}, path)
shutil.copyfile(path, "/output/model.pt")
json.dump({"norm": float(weights["weight"].norm())}, open("/output/metrics.json", "w"))
"""


def test_archives_of_equal_tensors_are_equal(tmp_path):
    """Their bytes differ, and their contents do not: the second run is bit-identical."""
    project = tmp_path / "training"
    project.mkdir()
    (project / "main.py").write_text(PROGRAM)
    (project / "requirements.txt").write_text("torch==2.13.0\n")
    (project / "pyproject.toml").write_text('[tool.torchship]\nseed = "--seed={seed}"\n')
    found = []
    for name in ("one", "other"):
        command = [sys.executable, "-m", "torchship", "record", str(project), "--runs", "2"]
        done = subprocess.run(
            [*command, "--engine", "native", "-o", str(tmp_path / name)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.append(publishing.read(tmp_path / name).record)
    one, other = found
    assert one.determinism.repeat.identical
    assert one.runs[0].outputs["model.pt"] != other.runs[0].outputs["model.pt"]
    assert one.runs[0].tensors == other.runs[0].tensors != {}
    assert one.runs[0].tensors != one.runs[1].tensors
    assert compare(one, other).level is Level.BIT_IDENTICAL
    assert one.software.torch.startswith("2.13.0")
    assert one.determinism.threads >= 1
    assert one.hardware.instruction_set
