"""Going through folders that a program filled."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from torchship.engines.descent import change_mode, walk
from torchship.oci.folders import remove


@pytest.fixture
def top(tmp_path):
    """Return a folder to go through, and a descriptor of it."""
    folder = tmp_path / "top"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    yield folder, descriptor
    os.close(descriptor)


def found(descriptor) -> dict[str, set[str]]:
    """Return the files of each folder."""
    return {"/".join(opened.above): set(opened.files) for opened in walk(descriptor)}


@contextmanager
def dug(folder, depth, name="d" * 200, mode=0o644) -> Iterator[None]:
    """Make folders below one another, and a file in the last, whose path is too long for Linux.

    They are gone afterwards, for pytest would not get rid of them.
    """
    inside = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=inside)
        below = os.open(name, os.O_RDONLY, dir_fd=inside)
        os.close(inside)
        inside = below
    file = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=inside)
    os.fchmod(file, mode)
    os.close(file)
    os.close(inside)
    try:
        yield
    finally:
        remove(folder / name)


def test_every_folder_is_opened_once(top):
    """All that is below it comes, with the way to it."""
    folder, descriptor = top
    for path in ("a/b/c", "a/d", "e"):
        (folder / path).mkdir(parents=True)
        (folder / path / "file").touch()
    (folder / "a/file").touch()
    expected = {"": set(), "a": {"file"}, "a/b": set()}
    expected |= {path: {"file"} for path in ("a/b/c", "a/d", "e")}
    assert found(descriptor) == expected
    assert found(descriptor) == expected


def test_no_link_is_gone_through(top, tmp_path):
    """A symlink is a file, wherever it leads."""
    folder, descriptor = top
    (tmp_path / "host").mkdir()
    (tmp_path / "host/file").touch()
    (folder / "link").symlink_to(tmp_path / "host")
    assert found(descriptor) == {"": {"link"}}


def test_depth_is_no_hiding_place(top):
    """Deeper than Python recurses, longer than a path may be, more than files may be open."""
    folder, descriptor = top
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with dug(folder, 2000):
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
        try:
            deepest = [(len(opened.above), opened.files) for opened in walk(descriptor)][-1]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert deepest == (2000, ["file"])


def test_a_folder_that_is_closed_to_its_owner_is_opened(top):
    """Others may go through a folder of mode 0711 or 0011: its owner must find what they find."""
    folder, descriptor = top
    for name, mode in (("none", 0), ("others", 0o011), ("listed", 0o444)):
        (folder / name).mkdir()
        (folder / name / "file").touch()
        (folder / name).chmod(mode)
    assert found(descriptor) == {
        "": set(),
        "none": {"file"},
        "others": {"file"},
        "listed": {"file"},
    }
    assert (folder / "others").stat().st_mode & 0o777 == 0o511


def test_what_is_taken_out_is_left_out(top):
    """The way on is the caller's choice."""
    folder, descriptor = top
    (folder / "a/b").mkdir(parents=True)
    for opened in walk(descriptor):
        assert opened.above != ["a", "b"]
        opened.folders[:] = [name for name in opened.folders if name != "b"]


def test_a_folder_that_moves_meanwhile_leads_nowhere(top, tmp_path):
    """The way back is where it came from, or the walk ends."""
    folder, descriptor = top
    (folder / "a/b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(OSError, match="moved"):
        for opened in walk(descriptor):
            if opened.above == ["a", "b"]:
                (folder / "a/b").rename(tmp_path / "elsewhere/b")


def test_a_mode_is_changed_through_no_link(top, tmp_path):
    """What a symlink leads to keeps its mode; the file of that name need not be readable."""
    folder, descriptor = top
    outside = tmp_path / "outside"
    outside.touch(0o600)
    (folder / "link").symlink_to(outside)
    (folder / "file").touch(0o111)
    change_mode("file", 0o100, descriptor)
    assert (folder / "file").stat().st_mode & 0o777 == 0o100
    with suppress(OSError):  # as Linux has it
        change_mode("link", 0o777, descriptor)
    assert outside.stat().st_mode & 0o777 == 0o600
