"""What programs import."""

import os

import pytest

from torchship.project.imports import foreign
from torchship.project.project import Project

MAIN = """\
from __future__ import annotations
import distutils, os.path, json as j
import torch.nn as nn, numpy
from torchvision import datasets
from helper import something
from pkg import inner
import pkg.deep.er
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import pandas
try:
    import wandb
except ImportError:
    wandb = None
print("\\d")
def main():
    import tqdm
"""


@pytest.fixture
def project(tmp_path):
    """Return a function that writes a project's files."""

    def write(command=("python", "main.py"), environment=None, **files):
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Project(root=tmp_path, name="x", command=command, environment=environment or {})

    return write


def test_what_is_neither_pythons_nor_the_projects_is_foreign(project):
    """The project's own files are followed; what may be missing or is for types alone is not."""
    files = {
        "helper": "import scipy\nimport main\n",
        "pkg__inner": "from . import beside\nfrom .beside import x\nfrom .. import nothing\n",
        "pkg__beside": "import einops\n",
        "pkg__deep__er": "import PIL\n",
        "unused": "import tensorflow\n",
    }
    found = foreign(project(main=MAIN, **files))
    assert found == ("PIL", "einops", "numpy", "scipy", "torch", "torchvision", "tqdm")


def test_modules_are_looked_for_where_python_looks(project):
    """Beside the script, and where PYTHONPATH says; a folder of data is no module."""
    found = project(
        ("python", "scripts/train.py"),
        {"PYTHONPATH": "/workspace/lib"},
        scripts__train="import beside, within, native, datasets, namespace.part\n",
        scripts__beside="",
        lib__within="import torch\n",
        namespace__part="",
    )
    (found.root / "scripts" / "native.cpython-311-x86_64-linux-gnu.so").touch()
    (found.root / "datasets").mkdir()
    assert foreign(found) == ("datasets", "torch")


@pytest.mark.parametrize("text", ["import if", "\0", "(" * 10_000, "\xff"])
def test_a_program_that_is_not_python_imports_nothing(project, text):
    """It is the program's own affair how it fails."""
    assert foreign(project(main=text)) == ()


def test_where_nothing_is_started_nothing_is_read(project, tmp_path):
    """A command without a file of ours, and a pipe in the place of one."""
    assert foreign(project(("bash",), main="import torch\n")) == ()
    (tmp_path / "main.py").unlink()
    os.mkfifo(tmp_path / "main.py")
    assert foreign(project()) == ()
