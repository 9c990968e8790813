"""What a program wrote where nothing is kept."""

import pytest

from torchship.engines.leftover import leftover, told

from .test_descent import dug


@pytest.fixture
def upper(tmp_path):
    """Return the folder that holds what a program wrote."""
    folder = tmp_path / "upper"
    folder.mkdir()
    return folder


def write(upper, *paths):
    """Make files, and the folders above them."""
    for path in paths:
        (upper / path).parent.mkdir(parents=True, exist_ok=True)
        (upper / path).touch()


def test_files_below_the_working_directory_are_found(upper):
    """In any depth; caches, links and places of mounts are none."""
    write(upper, "w/a", "w/b/c", "w/.hidden", "w/.cache/x", "w/b/__pycache__/x", "w/m", "tmp/x")
    (upper / "w/link").symlink_to("a")
    assert leftover(upper, "/w", mounts={"/w/m"}) == ("a", "b/c")
    assert leftover(upper, "//w/./b/") == ("c",)
    assert "tmp/x" in leftover(upper, "/")
    assert leftover(upper, "/missing") == leftover(upper, "/w/a") == ()


@pytest.mark.parametrize(
    "workdir", ["/../host", "/w/../../host", "/link", "/link/below", "/up/host"]
)
def test_the_host_is_not_looked_at(upper, tmp_path, workdir):
    """No way up, and no link in any part of the way, leads out of the container's folder."""
    write(tmp_path, "host/secret", "host/below/secret")
    (upper / "w").mkdir()
    (upper / "link").symlink_to(tmp_path / "host")
    (upper / "up").symlink_to("..")
    assert leftover(upper, workdir) == ()


def test_a_tree_of_any_depth_does_no_harm(upper):
    """What is far down is not told."""
    write(upper, "w/a")
    with dug(upper / "w", 2000):
        assert leftover(upper, "/w") == ("a",)


@pytest.mark.parametrize(
    "name", ["a\n\x1b[1A\x1b[2K\rBIT-IDENTICAL", "\x9b2J", "\u202egnp.exe", "\udcff"]
)
def test_a_name_cannot_play_with_the_terminal(name):
    """Of a name that holds more than letters, the letters are shown, and what else is escaped."""
    line = told([name], kept="/output")
    assert line.isprintable()
    assert repr(name) in line


def test_a_line_holds_few_names():
    """Of many, it says how many there are."""
    assert told(["ü.pt"], kept="/output").startswith(
        "1 file written outside /output was not kept: ü.pt ("
    )
    assert "7 files" in told("abcdefg", kept="/output")
    assert ": a, b, c, d, e, ... (" in told("abcdefg", kept="/output")
