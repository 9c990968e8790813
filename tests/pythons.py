"""Pythons of this machine other than that which runs the tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


def python(minor: int) -> str:
    """Return the program of a Python 3.``minor``, pyenv's or the system's; skip without one."""
    kept = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3.{minor}"))
    found = str(kept[-1]) if kept else shutil.which(f"python3.{minor}")
    if found is None:
        pytest.skip(f"this machine has no Python 3.{minor}")
    return found
