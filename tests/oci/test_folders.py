"""Folders of the store."""

import errno
import os
from pathlib import Path

import pytest

from torchship.oci.folders import private, remove


def test_a_tree_is_removed_whatever_its_modes_and_depth(tmp_path):
    """What a container leaves behind cannot stay by being deep or closed."""
    deep = tmp_path / "tree"
    deep.mkdir()
    here = Path.cwd()
    try:
        os.chdir(deep)
        for _ in range(1100):
            Path("d" * 20).mkdir()
            os.chdir("d" * 20)
    finally:
        os.chdir(here)
    (deep / "closed").mkdir()
    (deep / "closed/file").touch()
    (deep / "closed").chmod(0)
    outside = tmp_path / "outside"
    outside.mkdir()
    (deep / "link").symlink_to(outside)
    (deep / "seven").write_bytes(b"7 bytes")
    assert remove(deep) == 7 + len(str(outside))
    assert not deep.exists()
    assert outside.exists()


@pytest.mark.parametrize("before", [None, 0o755, 0o777, 0o2775, 0o700, 0o500])
def test_a_private_folder_is_the_callers_alone(tmp_path, before):
    """Made or found, others have no way in; what the caller may do there stays."""
    folder = tmp_path / "new" / "folder"
    if before is not None:
        folder.mkdir(parents=True)
        folder.chmod(before)
    private(folder)
    after = folder.stat().st_mode & 0o7777
    assert after == (0o700 if before is None else before & ~0o077)


def test_what_is_no_folder_is_not_removed(tmp_path):
    """A symlink, and what it leads to, stay."""
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    assert remove(tmp_path / "link") == remove(tmp_path / "file") == 0
    assert (tmp_path / "file").exists()
    assert remove(tmp_path / "missing") == 0


def test_what_a_broken_off_removal_left_goes(tmp_path):
    """Another one, of the same number of a process, does not stumble over it."""
    top = tmp_path / "top"
    for name in (".removed-1-1", ".removed-1-2", "a"):
        (top / name / "below" / "further").mkdir(parents=True)
        (top / name / "below" / "file").write_bytes(b"12")
    assert remove(top) == 6
    assert not top.exists()


def test_folders_that_cannot_be_moved_go_where_they_are(tmp_path, monkeypatch):
    """An overlay may refuse to rename a folder of a lower layer (EXDEV)."""

    def refuse(path, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    top = tmp_path / "top"
    (top / "a" / "b" / "c").mkdir(parents=True)
    (top / "a" / "b" / "file").write_bytes(b"12")
    monkeypatch.setattr(Path, "rename", refuse)
    assert remove(top) == 2
    assert not top.exists()
