"""Run directories."""

from datetime import UTC, datetime

import pytest

from torchship.digest import Digest
from torchship.errors import StoreError, UsageError
from torchship.layers.selection import MARK, MARKED
from torchship.runs.run import RecordDirectory, RunDirectory

NOW = datetime(2026, 11, 22, 23, 0, 5, tzinfo=UTC)
IMAGE = Digest.of(b"image")


def test_a_run_is_named_by_its_time_and_image(tmp_path):
    """Runs sort by time, and show what ran."""
    found = RunDirectory.create(tmp_path, IMAGE, NOW)
    assert found.path.name == f"20261122T230005Z-{IMAGE.hex[:12]}"
    assert found.output.is_dir()


def test_two_runs_of_one_second_have_two_directories(tmp_path):
    """No run writes into another's directory."""
    first = RunDirectory.create(tmp_path, IMAGE, NOW)
    second = RunDirectory.create(tmp_path, IMAGE, NOW)
    assert first.path != second.path


def test_a_directory_that_holds_a_run_is_not_taken_again(tmp_path):
    """A record is never overwritten."""
    RunDirectory.at(tmp_path).record.write_text("{}")
    with pytest.raises(UsageError, match="already holds a run"):
        RunDirectory.at(tmp_path)


def test_a_directory_of_other_things_is_not_taken(tmp_path):
    """`-o .` would strew a run over the project."""
    (tmp_path / "main.py").write_text("")
    with pytest.raises(UsageError, match="is not empty"):
        RunDirectory.at(tmp_path)


def test_a_run_that_never_began_leaves_nothing(tmp_path):
    """What was made for it goes, and nothing that holds anything."""
    (tmp_path / "mine").mkdir()
    for found in (
        RunDirectory.create(tmp_path, IMAGE, NOW),
        RunDirectory.at(tmp_path / "mine"),
    ):
        found.log.touch()
        found.discard()
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]
    assert not list((tmp_path / "mine").iterdir())
    begun = RunDirectory.create(tmp_path, IMAGE, NOW)
    begun.log.write_text("a line\n")
    begun.discard()
    assert begun.log.is_file()
    assert (begun.path / MARK).is_file()


def test_several_runs_of_which_none_began_leave_nothing(tmp_path):
    """Nor does the directory, as far as it was made, stand in the way of the next."""
    found = RecordDirectory.at(tmp_path / "mine")
    assert (found.path / MARK).read_bytes() == MARKED
    found.discard()
    assert not found.path.exists()
    begun = RecordDirectory.create(tmp_path, IMAGE, NOW)
    begun.run(1, 1)
    begun.discard()
    assert sorted(path.name for path in begun.path.iterdir()) == [MARK, "seed-1"]


def test_a_parent_that_is_a_file_is_an_error_with_its_path(tmp_path):
    """The message names the path, and what to do."""
    (tmp_path / "runs").write_text("")
    with pytest.raises(StoreError, match="cannot make the run directory") as caught:
        RunDirectory.create(tmp_path / "runs", IMAGE, NOW)
    assert caught.value.hint


def test_an_empty_folder_of_the_users_stays_when_a_recording_never_begins(tmp_path):
    """Only a folder that was made for it goes."""
    mine = tmp_path / "mine"
    mine.mkdir()
    RecordDirectory.at(mine).discard()
    RecordDirectory.at(tmp_path / "made").discard()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert not list(mine.iterdir())
