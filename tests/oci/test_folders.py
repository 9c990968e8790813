"""Folders of the store."""

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
