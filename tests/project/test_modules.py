"""Where Python looks for a project's packages."""

from __future__ import annotations

import pytest

from torchship.project.modules import search_path

PROJECT = '[project]\nname = "pkg"\nversion = "1"\n'
BUILD = '[build-system]\nrequires = ["hatchling"]\n'
COMMAND = '[tool.torchship]\ncommand = ["python", "-m", "pkg.deep"]\n'
PATHS = ("main.py", "src/pkg/__init__.py", "src/pkg/deep/er.py", "src/pkg/data.txt")


@pytest.mark.parametrize("table", [PROJECT, BUILD + COMMAND])
def test_packages_in_src_are_found(project, table):
    """The code of a package is in the image as it is: what an installation would do is done."""
    assert search_path(project(table), PATHS) == "/workspace/src"


@pytest.mark.parametrize(
    ("settings", "paths"),
    [
        ("", PATHS),
        ("[tool.torchship]\n", PATHS),
        (f'{PROJECT}[tool.torchship]\nenvironment = {{ PYTHONPATH = "/workspace" }}\n', PATHS),
        (PROJECT, (*PATHS, "src/random.py")),
        (PROJECT, ("src/pkg/main.py", "src/__init__.py")),
        (PROJECT, ("lib/src/pkg/__init__.py", "pkg/__init__.py")),
        (PROJECT, ()),
        (BUILD, PATHS),
        (PROJECT, ("src/logging/__init__.py", "src/pkg/__init__.py")),
        (PROJECT, ("src/datasets/__init__.py",)),
    ],
    ids=[
        *("bare", "no package", "set", "a module", "no __init__", "elsewhere", "left out"),
        *("of no name", "not alone", "of another name"),
    ],
)
def test_python_is_told_of_nothing_else(project, settings, paths):
    """Neither where the settings say it, nor where a module there could hide one of Python's."""
    assert search_path(project(settings), paths) == ""
