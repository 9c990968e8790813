"""`torchship init`: the defaults, written out."""

from __future__ import annotations

import tomllib

import pytest

from torchship.errors import ProjectError
from torchship.project.init import init
from torchship.project.project import load


def test_what_is_written_is_what_stood_for_it(tmp_path):
    """The spelled-out table means the same as no table."""
    (tmp_path / "main.py").write_text("")
    before = load(tmp_path)
    path = init(tmp_path)
    assert load(tmp_path) == before
    assert {"name", "command", "python", "base", "prune", "bytecode"} <= set(
        tomllib.loads(path.read_text())["tool"]["torchship"]
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_a_file_that_exists_keeps_every_byte(tmp_path, end):
    """The table is appended, with the file's own line ends."""
    path = tmp_path / "pyproject.toml"
    mark = end or "\n"
    text = f"# mine{mark}[project]{mark}name = 'x'{end}"
    path.write_bytes(text.encode())
    path.chmod(0o640)
    init(tmp_path)
    after = path.read_bytes().decode()
    assert after.startswith(text)
    assert ("\r\n" in after) == ("\r\n" in text)
    assert path.stat().st_mode & 0o777 == 0o640
    assert tomllib.loads(after)["project"] == {"name": "x"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[tool.torchship]\n", "has a .tool.torchship. table already"),
        ("[tool.torchship.data]\n", "has a .tool.torchship. table already"),
        ("tool = {}\n", "in a way that no table can be appended to"),
        ("[tool\n", "is not valid TOML"),
    ],
)
def test_a_file_that_cannot_take_the_table_is_left_alone(tmp_path, text, fault):
    """Nothing is changed where the result would be wrong."""
    path = tmp_path / "pyproject.toml"
    path.write_text(text)
    with pytest.raises(ProjectError, match=fault):
        init(tmp_path)
    assert path.read_text() == text


def test_nothing_else_is_made(tmp_path):
    """The experiment's own files are the user's."""
    init(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]


def test_a_missing_directory_is_told(tmp_path):
    """A directory that is not there is not made."""
    with pytest.raises(ProjectError, match="is not a directory"):
        init(tmp_path / "absent")
