"""Data files as layers."""

import pytest

from torchship.digest import Digest
from torchship.errors import HostileInput, ProjectError
from torchship.layers.data import DataRecipe
from torchship.project.lock import DataPin

CONTENT = b"\x1f\x8b not really a gzip file" * 100


@pytest.fixture
def pinned(tmp_path):
    """Return a function that pins a file to a path of the image."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)

    def pin(target, extra=0):
        digest = Digest.of(CONTENT)
        pin = DataPin(path=target, filename="file.gz", size=len(CONTENT) + extra, digest=digest)
        return DataRecipe(pin=pin), {digest: path}

    return pin


def test_a_data_file_stands_at_its_path_unchanged(cook, pinned):
    """The bytes are the file's, mode 0644, root's, and nothing but its parents is with it."""
    made = cook(*pinned("/data/mnist/train.gz"))
    assert made.read("data/mnist/train.gz") == CONTENT
    assert list(made.members) == ["data", "data/mnist", "data/mnist/train.gz"]
    assert {(info.uid, info.mode) for info in made.members.values() if info.isdir()} == {(0, 0o755)}
    assert made.members["data/mnist/train.gz"].mode == 0o644


def test_data_below_the_working_directory_is_the_users(cook, pinned):
    """A layer that names /workspace again must not take it from the user."""
    members = cook(*pinned("/workspace/data/train.gz")).members
    assert {info.uid for info in members.values()} == {1000}


@pytest.mark.parametrize("path", ["data/a", "/proc/a", "/opt/venv", "/dev/x", "/opt/venv/a"])
def test_a_path_that_hides_the_system_is_refused(cook, pinned, path):
    """Relative paths and the folders of the kernel and of the environment are errors."""
    with pytest.raises(ProjectError, match="cannot stand there"):
        cook(*pinned(path))


@pytest.mark.parametrize("path", ["/../etc/passwd", "/data//a", "/data/"])
def test_a_path_that_is_not_normal_is_refused(cook, pinned, path):
    """The archive takes plain paths alone."""
    with pytest.raises(HostileInput):
        cook(*pinned(path))


def test_a_file_shorter_than_its_pin_is_an_error(cook, pinned):
    """What is stated and what comes must agree."""
    with pytest.raises(HostileInput, match="bytes"):
        cook(*pinned("/data/a", extra=1))
