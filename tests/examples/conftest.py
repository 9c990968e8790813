"""A Python with torch, and digits, for the tests of the example programs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from tests.examples.programs import EXAMPLES, draw


@pytest.fixture(scope="session")
def python() -> str:
    """Return a Python with torch: this one, or in CI one made for the tests and kept."""
    if importlib.util.find_spec("torch"):
        return sys.executable
    if os.environ.get("TORCHSHIP_REQUIRE_ENGINES") != "1":
        pytest.skip("torch is not installed beside the tests")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "torchship-tests" / f"torch-{sys.version_info.major}.{sys.version_info.minor}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = folder / "bin" / "python"
    with FileLock(f"{folder}.lock"):
        if not (folder / "whole").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            requirements = EXAMPLES / "mnist" / "requirements.txt"
            subprocess.run([made, "-m", "pip", "install", "-q", "-r", requirements], check=True)
            (folder / "whole").touch()
    return str(made)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """Draw a few digits once; tests that damage them take a copy."""
    folder = tmp_path_factory.mktemp("digits")
    draw(folder)
    return folder


@pytest.fixture
def digits(drawn, tmp_path) -> Path:
    """Give a copy of the digits to damage."""
    return Path(shutil.copytree(drawn, tmp_path / "digits"))
