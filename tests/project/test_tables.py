"""TOML that is none, and what to write instead."""

from __future__ import annotations

import pytest

from torchship.errors import ProjectError
from torchship.project import tables


def refused(path, text: str) -> ProjectError:
    """Return what is said of a file."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProjectError, match=r"is not valid TOML: .*\(at ") as caught:
        tables.parse(path)
    return caught.value


@pytest.mark.parametrize(
    "text", [r'pattern = "acc: (\d+)"', r'pattern = """acc (\S+)"""', r'pattern = "\u0028\xg"']
)
def test_backslashes_want_single_quotes(tmp_path, text):
    """A regular expression in double quotes is the first fault that people make."""
    assert "single quotes keep backslashes" in refused(tmp_path / "a.toml", text).hint


@pytest.mark.parametrize(
    "text",
    [
        "[tool.torchship.metrics.정확도]\nfile = 'm.json'\n",
        "[tool.torchship.metrics.test accuracy]\n",
        "[a]\nb = 1\n정확도 = 1\n",
        "[a]\r\ngenauigkeit_größe = 1\r\n",
        "test acc = {}\n",
        "a.é = {}\n",
    ],
)
def test_names_of_other_letters_want_quotes(tmp_path, text):
    """Names of metrics are keys of TOML."""
    assert "quote the key" in refused(tmp_path / "a.toml", text).hint


@pytest.mark.parametrize("text", ["[a\nb = 1\n", "a = \n", "= 1\n", "a\n", "<<<<<<< HEAD\n", "a"])
def test_other_faults_are_told_as_they_are(tmp_path, text):
    """No advice is better than a wrong one."""
    assert refused(tmp_path / "a.toml", text).hint is None
