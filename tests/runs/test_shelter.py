"""Run directories while a program writes to them."""

import os
import stat

import pytest

from torchship.runs.shelter import sheltered


def mode(path) -> int:
    """Return a mode's twelve bits."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def output(tmp_path):
    """Return the output directory of a run."""
    folder = tmp_path / "run" / "output"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o755)
    return folder


def test_nobody_else_enters_a_run_directory_before_its_files_are_harmless(output):
    """It is closed while the program runs, and as it was when no setuid file is left."""
    with sheltered(output):
        assert mode(output.parent) == 0o700
        (output / "program").touch()
        (output / "program").chmod(0o4755)
    assert mode(output / "program") == 0o755
    assert mode(output.parent) == 0o755


def test_a_run_that_fails_leaves_nothing_open(output):
    """Ctrl-C, and a daemon that is gone, come in the middle of a program's work."""
    with pytest.raises(KeyboardInterrupt), sheltered(output):
        (output / "program").touch()
        (output / "program").chmod(0o6755)
        raise KeyboardInterrupt
    assert mode(output / "program") == 0o755
    assert mode(output.parent) == 0o755


def test_where_it_is_not_certain_the_directory_stays_closed(output):
    """What cannot be looked through may hold anything."""
    with sheltered(output):
        output.rmdir()
        output.touch()
    assert mode(output.parent) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has no other user's folder")
def test_a_folder_of_another_users_is_left_to_them(output):
    """Closed to its owner it would be closed to the program, too; the files become harmless."""
    os.chown(output.parent, 4321, 4321)
    with sheltered(output):
        assert mode(output.parent) == 0o755
        (output / "program").touch()
        (output / "program").chmod(0o4755)
    assert mode(output / "program") == 0o755
