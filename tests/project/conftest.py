"""A machine with package settings of the test's own, and projects on it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.project.debian import debian, serve_folder

from torchship.project.project import load

__all__ = ["debian", "serve_folder"]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Hide the user's pip and uv settings; give a HOME of the test's own."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_", "TORCHSHIP_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(home / "xdg"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return home


@pytest.fixture
def project(tmp_path):
    """Give a function that writes a project's files and loads it."""

    def write(settings: str = "", *, root: Path = tmp_path / "project", **files: str):
        root.mkdir(exist_ok=True)
        contents = {"main.py": "print('hello')\n"}
        contents |= {name.replace("__", "."): text for name, text in files.items()}
        if settings:
            contents["pyproject.toml"] = settings
        for name, text in contents.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return load(root)

    return write
