"""Run directories while a program writes to them."""

import errno
import os
import signal
import stat

import pytest

from torchship.runs import shelter
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


def test_ctrl_c_during_the_last_look_counts_after_it(output, monkeypatch):
    """The directory does not stay closed because somebody was in a hurry."""
    look = shelter.disarm

    def interrupted(folder):
        signal.raise_signal(signal.SIGINT)
        return look(folder)

    monkeypatch.setattr(shelter, "disarm", interrupted)
    with pytest.raises(KeyboardInterrupt), sheltered(output):
        pass
    assert mode(output.parent) == 0o755


def test_a_folder_that_a_program_made_read_only_stays_so(output):
    """To look into it takes no right to write."""
    folder = output / "checkpoint"
    folder.mkdir()
    (folder / "program").touch()
    (folder / "program").chmod(0o4555)
    folder.chmod(0o555)
    with sheltered(output):
        pass
    assert (mode(folder), mode(folder / "program")) == (0o555, 0o555)
    folder.chmod(0o755)


def test_a_file_that_vanishes_meanwhile_is_no_obstacle(output, monkeypatch):
    """Networked folders lose files that somebody still had open."""
    for i in range(3):
        (output / f"file{i}").touch()
    seen = os.stat

    def vanishing(path, **more):
        if path == "file1":
            (output / "file1").unlink(missing_ok=True)
        return seen(path, **more)

    monkeypatch.setattr(os, "stat", vanishing)
    with sheltered(output):
        pass
    monkeypatch.undo()
    assert not (output / "file1").exists()
    assert mode(output.parent) == 0o755


def test_a_file_system_without_modes_is_no_obstacle(output, monkeypatch):
    """Some mounts of storage elsewhere refuse to change them."""

    def refuse(descriptor, mode):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", refuse)
    with sheltered(output):
        (output / "result").touch()
    assert (output / "result").exists()
