"""What a container wrote becomes the caller's, and harmless."""

import os
import socket
import stat

import pytest

from torchship.engines.handover import all_mine, disarm

from .test_descent import dug


def mode(path) -> int:
    """Return a mode's twelve bits."""
    return stat.S_IMODE(path.stat(follow_symlinks=False).st_mode)


@pytest.fixture
def output(tmp_path):
    """Return an output directory."""
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


def test_no_file_keeps_the_rights_of_its_owner_for_others(output):
    """In any folder, of any mode; all other bits stay."""
    (output / "a/b").mkdir(parents=True)
    for name, bits in (("one", 0o4755), ("a/two", 0o2711), ("a/b/three", 0o6000), ("four", 0o1644)):
        (output / name).touch()
        (output / name).chmod(bits)
    assert disarm(output)
    found = {name: mode(output / name) for name in ("one", "a/two", "a/b/three", "four")}
    assert found == {"one": 0o755, "a/two": 0o711, "a/b/three": 0, "four": 0o1644}


def test_what_is_no_file_stays_as_it_is(output, tmp_path):
    """Links lead nowhere; a folder's setgid bit gives nobody any rights."""
    outside = tmp_path / "outside"
    outside.touch()
    outside.chmod(0o4755)
    (output / "link").symlink_to(outside)
    (output / "folder").mkdir()
    (output / "folder").chmod(0o2775)
    os.mkfifo(output / "fifo")
    with socket.socket(socket.AF_UNIX) as ear:
        ear.bind(os.path.relpath(output / "socket"))
    assert disarm(output)
    assert mode(outside) == 0o4755
    assert mode(output / "folder") == 0o2775


def test_no_depth_and_no_closed_folder_hides_one(output):
    """The program may have closed its folders to their owner, the topmost among them."""
    with dug(output, 1500, mode=0o4755):
        inside = os.open(output, os.O_RDONLY)
        for _ in range(1500):
            below = os.open("d" * 200, os.O_RDONLY, dir_fd=inside)
            os.close(inside)
            inside = below
        (output / "closed").mkdir()
        (output / "closed/file").touch()
        (output / "closed/file").chmod(0o4711)
        (output / "closed").chmod(0o011)
        output.chmod(0o011)
        assert disarm(output)
        assert mode(output / "closed/file") == 0o711
        assert stat.S_IMODE(os.stat("file", dir_fd=inside).st_mode) == 0o755
        os.close(inside)
        assert all_mine(output)


def test_an_output_that_is_gone_holds_nothing(output):
    """There is nothing to be afraid of in it; in a file of its name there may be."""
    output.rmdir()
    assert disarm(output)
    output.touch()
    assert not disarm(output)
