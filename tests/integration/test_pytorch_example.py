"""Somebody else's program, unmodified: PyTorch's own MNIST example, by the lines that it prints.

TORCHSHIP_PYTORCH_MNIST names the file: `mnist/main.py` of PyTorch's examples repository, of any
year. It imports torchvision; a stand-in beside it reads the same published files, for there is
no build of torchvision for every build of torch that the tests meet.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from torchship.runs import publishing
from torchship.runs.verdict import Level, compare

pytestmark = [pytest.mark.engine, pytest.mark.network, pytest.mark.slow]

EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist"
PROGRAM = os.environ.get("TORCHSHIP_PYTORCH_MNIST", "")

DATASETS = """
import gzip, os
import torch

class MNIST(torch.utils.data.Dataset):
    def __init__(self, root, train=True, download=False, transform=None):
        part = "train" if train else "t10k"
        self.images = self._idx(root, f"{part}-images-idx3-ubyte.gz", 16).view(-1, 28, 28)
        self.labels = self._idx(root, f"{part}-labels-idx1-ubyte.gz", 8).tolist()
        self.transform = transform

    def _idx(self, root, name, header):
        with gzip.open(os.path.join(root, "mnist", name)) as file:
            return torch.frombuffer(bytearray(file.read()), dtype=torch.uint8, offset=header)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(self.images[index]), self.labels[index]
"""
TRANSFORMS = """
class Compose:
    def __init__(self, steps):
        self.steps = steps

    def __call__(self, image):
        for step in self.steps:
            image = step(image)
        return image

class ToTensor:
    def __call__(self, image):
        return image.unsqueeze(0).float().div(255)

class Normalize:
    def __init__(self, mean, deviation):
        (self.mean,), (self.deviation,) = mean, deviation

    def __call__(self, image):
        return image.sub(self.mean).div(self.deviation)
"""


@pytest.mark.skipif(not PROGRAM, reason="TORCHSHIP_PYTORCH_MNIST names no file")
def test_pytorchs_own_example_unmodified(tmp_path):
    """A seed by its flag, an accuracy by a pattern: nothing of it is changed, and it is judged."""
    project = tmp_path / "theirs"
    (project / "torchvision").mkdir(parents=True)
    shutil.copyfile(PROGRAM, project / "main.py")
    (project / "torchvision" / "__init__.py").write_text("")
    (project / "torchvision" / "datasets.py").write_text(DATASETS)
    (project / "torchvision" / "transforms.py").write_text(TRANSFORMS)
    for name in ("requirements.txt", "torchship.lock"):
        shutil.copyfile(EXAMPLE / name, project / name)
    told = (EXAMPLE / "pyproject.toml").read_text().partition("[tool.torchship.metrics")[0]
    told = re.sub('name = "mnist"', 'name = "theirs"', told)
    metric = "[tool.torchship.metrics.test_accuracy]\npattern = 'Accuracy: (\\d+)/(\\d+)'\n"
    (project / "pyproject.toml").write_text(told + metric)
    command = ("--", "python", "main.py", "--epochs", "1", "--batch-size", "600")
    found = []
    for name, runs in (("author", "2"), ("reader", "1")):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "torchship", "record", project, "--engine", "native"),
                *("--cpus", "1", "--runs", runs, "--no-repeat", "-o", tmp_path / name, *command),
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found.append(publishing.read(tmp_path / name).record)
    author, reader = found
    (claim,) = author.claims
    assert (claim.name, claim.n, claim.examples) == ("test_accuracy", 2, 10_000)
    assert 0.1 < claim.mean < 1
    assert claim.spread > 0
    assert any({"Train Epoch", "Loss"} <= step.keys() for step in author.runs[0].curve.steps)
    assert compare(author, reader).level is Level.BIT_IDENTICAL
