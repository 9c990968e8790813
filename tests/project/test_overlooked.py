"""Lists of requirements that do not count."""

from __future__ import annotations

import pytest

from torchship.errors import UsageError
from torchship.project.overlooked import overlooked

POETRY = '[tool.poetry]\nname = "x"\n[tool.poetry.dependencies]\ntorch = "*"\n'
LISTED = '[project]\nname = "x"\ndependencies = ["torch"]\n'


def test_lists_that_other_tools_read_are_named(project):
    """An image without a wheel is no surprise to whoever wrote an environment.yml."""
    found = project(POETRY, environment__yml="dependencies: [pytorch]\n")
    assert found.requirements is None
    assert [line.partition(" is not read")[0] for line in overlooked(found)] == [
        "environment.yml",
        "[tool.poetry] of pyproject.toml",
    ]


def test_of_two_lists_it_is_said_which_counts(project):
    """Unless the settings say so themselves."""
    found = project(LISTED, requirements__txt="six\n")
    (line,) = overlooked(found)
    assert line.startswith("requirements.txt counts, `dependencies` of pyproject.toml does not")
    named = '[tool.torchship]\nrequirements = "requirements.txt"\n'
    assert overlooked(project(LISTED + named, requirements__txt="six\n")) == ()


def test_one_list_is_no_news(project, tmp_path):
    """A project that is as it should be is not talked about, whatever else lies there."""
    assert overlooked(project(root=tmp_path / "none")) == ()
    assert overlooked(project(LISTED, root=tmp_path / "listed")) == ()
    both = project(root=tmp_path / "both", requirements__txt="six\n", environment__yml="x\n")
    assert overlooked(both) == ()


def test_a_folder_in_the_files_place_is_an_error(project, tmp_path):
    """It cannot be read, and passing it over would make an image without wheels."""
    (tmp_path / "project" / "requirements.txt").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"requirements\.txt is a folder"):
        project()
