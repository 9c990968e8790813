"""Lists of requirements that do not count."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from torchship.digest import Digest
from torchship.errors import UsageError
from torchship.platform import Platform
from torchship.project.lock import BasePin, Lock, PlatformLock, WheelPin
from torchship.project.overlooked import overlooked, unlisted

POETRY = '[tool.poetry]\nname = "x"\n[tool.poetry.dependencies]\ntorch = "*"\n'
LISTED = '[project]\nname = "x"\ndependencies = ["torch"]\n'


def unread(found):
    """Return what is told to be read by nobody here."""
    lines = (line.partition(" is not read: ") for line in overlooked(found))
    return [name for name, said, _ in lines if said]


def test_lists_that_other_tools_read_are_named(project):
    """An image without a wheel is no surprise to whoever wrote an environment.yml."""
    found = project(POETRY, environment__yml="dependencies: [pytorch]\n")
    assert found.requirements is None
    assert unread(found) == ["environment.yml", "[tool.poetry] of pyproject.toml"]


GROUPS = '[dependency-groups]\ndev = ["torch"]\n'
EXTRAS = '[project]\nname = "x"\n[project.optional-dependencies]\ncpu = ["torch"]\n'
INLINE = '# /// script\n# dependencies = ["torch"]\n# ///\nimport torch\n'


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"settings": GROUPS}, "[dependency-groups] of pyproject.toml"),
        ({"settings": EXTRAS}, "[project.optional-dependencies] of pyproject.toml"),
        ({"main__py": INLINE}, "the `# /// script` block of main.py"),
        ({"requirements__in": "torch\n"}, "requirements.in"),
        ({"requirements/base__txt": "torch\n"}, "requirements/base.txt"),
        ({"requirements-gpu__txt": "torch\n"}, "requirements-gpu.txt"),
        ({"setup__py": ""}, "setup.py"),
    ],
)
def test_wherever_requirements_stand_it_is_said_that_they_do_not_count(project, files, named):
    """With what makes them count: a file of the usual form can be named in the settings."""
    found = project(**files)
    assert unread(found) == [named]
    (line,) = [line for line in overlooked(found) if named in line]
    assert ('requirements = "' in line) is named.endswith((".in", "base.txt", "gpu.txt"))


def test_a_program_without_requirements_is_told_what_it_will_lack(project, tmp_path):
    """By name, what it imports; on a published base, also that its packages are not seen."""
    assert overlooked(project()) == (
        "nothing here says what the program needs: the image has Python, and no packages",
    )
    found = project(main__py="import json, torch\nfrom helper import x\n", helper__py="")
    (line,) = overlooked(found)
    assert line.startswith("nothing here says what the program needs: it imports torch, which")
    assert "base" not in line
    based = project(
        '[tool.torchship]\nbase = "pytorch/pytorch:2"\n', main__py="import torch, numpy\n"
    )
    (line,) = overlooked(based)
    assert "it imports numpy, torch, which" in line
    assert "the Python of pytorch/pytorch:2 has of packages is not seen by the program" in line
    many = project(root=tmp_path / "many", main__py=f"import {', '.join('abcdefgh')}\n")
    assert "a, b, c, d, e, f and 2 others" in overlooked(many)[0]


def lock(found, *names):
    """Return a lock of such wheels."""
    wheels = tuple(
        WheelPin(name=name, version="1", filename="x.whl", size=1, digest=Digest.of(b""))
        for name in names
    )
    entry = PlatformLock(
        platform=Platform("linux", "amd64"),
        python="3.11.2",
        base=BasePin(reference=found.base),
        wheels=wheels,
    )
    return Lock(created=datetime.now(UTC), inputs=Digest.of(b""), platforms=(entry,))


def test_torch_of_a_base_is_not_the_programs(project):
    """Where the program imports torch and the lock has none, it is said, whatever the base has."""
    settings = '[tool.torchship]\nbase = "pytorch/pytorch:2"\n'
    found = project(settings, requirements__txt="six\n", main__py="import torch\n")
    (line,) = unlisted(found, lock(found, "six"))
    assert line.startswith("the program imports torch, and nothing in requirements.txt brings it")
    assert "pytorch/pytorch:2" in line
    assert unlisted(found, lock(found, "six", "torch")) == ()
    other = project(settings, requirements__txt="six\n", main__py="import six\n")
    assert unlisted(other, lock(other, "six")) == ()


@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock"])
def test_locks_of_other_tools_are_told_how_to_count(project, name, tmp_path):
    """By the command that makes of them what does, where that has not been done."""
    files = {name.replace(".", "__"): ""}
    (line,) = overlooked(project(LISTED, **files))
    assert line.startswith(f"{name} does not count here: `")
    (line,) = overlooked(project(root=tmp_path / "exported", requirements__txt="torch\n", **files))
    assert line == f"requirements.txt counts, {name} does not"


def test_a_pylock_stands_for_the_lock_that_it_was_made_of(project):
    """Nothing is said of uv.lock beside it."""
    both = project(LISTED, uv__lock="", pylock__toml='lock-version = "1.0"\n')
    assert overlooked(both) == (
        "pylock.toml counts, `dependencies` of pyproject.toml does not: `requirements` in "
        "[tool.torchship] names another",
    )


@pytest.mark.parametrize(
    ("text", "base"),
    [("3.12\n", "python:3.12-slim"), ("3.13.1\n", "debian:trixie"), ("cpython-3.9", "bullseye")],
)
def test_another_version_in_python_version_is_told(project, text, base):
    """With the settings that take it; the image's own version, and a setting, are no news."""
    files = {".python-version": text, "requirements__txt": ""}
    (line,) = overlooked(project(**files))
    assert line.startswith(".python-version says 3.")
    assert base in line
    assert overlooked(project('[tool.torchship]\npython = "3.11"\n', **files)) == ()


@pytest.mark.parametrize("text", ["3.11.7\n", "pypy3.10\n", "", "mine\n"])
def test_what_python_version_says_of_the_image_or_of_nothing_is_no_news(project, text):
    """It may also name an environment."""
    assert overlooked(project(requirements__txt="", **{".python-version": text})) == ()


def test_programs_that_an_installation_would_make_are_told(project):
    """The project is not installed; without such programs there is nothing to say."""
    text = '[project]\nname = "x"\nversion = "1"\ndependencies = []\n'
    scripts = '[project.scripts]\nteach = "x:main"\n[project.gui-scripts]\nshow = "x:show"\n'
    (line,) = overlooked(project(text + scripts))
    assert "(teach, show) are not in the image" in line
    assert "python -m" in line
    assert overlooked(project(text)) == ()


def test_of_two_lists_it_is_said_which_counts(project):
    """Unless the settings say so themselves."""
    found = project(LISTED, requirements__txt="six\n")
    (line,) = overlooked(found)
    assert line.startswith("requirements.txt counts, `dependencies` of pyproject.toml does not")
    named = '[tool.torchship]\nrequirements = "requirements.txt"\n'
    assert overlooked(project(LISTED + named, requirements__txt="six\n")) == ()


def test_one_list_is_no_news(project, tmp_path):
    """A project that is as it should be is not talked about, whatever else lies there."""
    assert overlooked(project(LISTED, root=tmp_path / "listed")) == ()
    both = project(root=tmp_path / "both", requirements__txt="six\n", environment__yml="x\n")
    assert overlooked(both) == ()


def test_a_folder_in_the_files_place_is_an_error(project, tmp_path):
    """It cannot be read, and passing it over would make an image without wheels."""
    (tmp_path / "project" / "requirements.txt").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"requirements\.txt is a folder"):
        project()
