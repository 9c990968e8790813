"""Pythons of this machine other than that which runs the tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_ASK = ("-c", "import sys; print(sys.executable)")


def python(minor: int) -> str:
    """Return the program of a Python 3.``minor``, pyenv's or the system's; skip without one."""
    kept = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3.{minor}"))
    found = str(kept[-1]) if kept else shutil.which(f"python3.{minor}")
    if found is not None:
        # What PATH has may be a script of pyenv's, which starts a Python elsewhere, or none
        asked = subprocess.run([found, *_ASK], capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            return asked.stdout.strip()
    pytest.skip(f"this machine has no Python 3.{minor}")
