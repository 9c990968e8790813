"""A training on the real torch: what it imports is compiled in the image."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.network, pytest.mark.slow]

PROGRAM = """
import json, os, sys
import torch
torch.optim.Adadelta([torch.zeros(1, requires_grad=True)])
found = {}
for module in list(sys.modules.values()):
    path, cached = getattr(module, "__file__", None), getattr(module, "__cached__", None)
    if isinstance(path, str) and path.endswith(".py") and "site-packages" in path:
        held = isinstance(cached, str) and os.path.exists(cached)
        found.setdefault(module.__name__.partition(".")[0], []).append(held)
with open("/output/metrics.json", "w") as out:
    json.dump({name: sum(held) / len(held) for name, held in found.items()}, out)
"""


def test_what_a_training_imports_is_compiled(tmp_path):
    """`bytecode.LATER` and `BROUGHT` fit this torch: hardly a module is compiled at the start."""
    project = tmp_path / "training"
    project.mkdir()
    (project / "main.py").write_text(PROGRAM)
    (project / "requirements.txt").write_text("torch==2.13.0\n")
    # -B: otherwise Python would write what it misses, and nothing would seem to be missing
    command = [
        sys.executable,
        "-m",
        "torchship",
        "run",
        "--engine",
        "native",
        str(project),
        "-o",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(
        [*command, "--", "python", "-B", "main.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shares = json.loads((tmp_path / "run/output/metrics.json").read_text())
    assert min(shares[name] for name in ("torch", "sympy", "mpmath")) > 0.97, shares
