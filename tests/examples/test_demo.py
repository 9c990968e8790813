"""The demo, where the world has moved on since its lock was committed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.examples.programs import EXAMPLES
from tests.wheels import make_wheel

BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import demo
from torchship.display import display
from torchship.oci.store import Store
demo.SCRATCH = Path(sys.argv[3])
with display() as progress:
    name, image = demo.build(Path(sys.argv[2]), Store.open(), progress)
    print(name, image.digest)
"""


@pytest.mark.network
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="the base is made with apt-get")
def test_where_no_index_has_the_locks_build_of_torch_another_is_taken(tmp_path: Path) -> None:
    """The demo says so, locks afresh beside the committed lock, which stays, and builds."""
    names = ("PIP_", "UV_", "TORCHSHIP_")
    clean = {name: text for name, text in os.environ.items() if not name.startswith(names)}
    shelf = tmp_path / "shelf"
    environment = {
        **clean,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(shelf),
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "TORCHSHIP_HOME": str(tmp_path / "store"),
    }
    project = tmp_path / "project"
    project.mkdir()
    (project / "main.py").write_text("import torch\n")
    (project / "requirements.txt").write_text("torch\n")
    settings = '[tool.torchship]\ntorch = "cpu"\nbytecode = "none"\n'
    (project / "pyproject.toml").write_text(settings)
    make_wheel(shelf, "torch", "2.13.0+cpu")
    torchship = [sys.executable, "-m", "torchship"]
    subprocess.run([*torchship, "lock", project], env=environment, check=True)
    committed = (project / "torchship.lock").read_bytes()

    shutil.rmtree(shelf)
    make_wheel(shelf, "torch", "2.13.0", requires=["nvidia-cuda-runtime==13.0.96"])
    make_wheel(shelf, "nvidia-cuda-runtime", "13.0.96")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, EXAMPLES, project, tmp_path / "scratch"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Taking whichever build of torch the index here has" in done.stderr
    assert "project:demo sha256:" in done.stdout
    assert (project / "torchship.lock").read_bytes() == committed
    fresh = (tmp_path / "scratch" / "project.lock").read_text()
    assert "torch-2.13.0-py3-none-any.whl" in fresh
