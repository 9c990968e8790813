"""A job that is held, and what its folder may hold."""

import os

import pytest

from torchship.errors import EngineError
from torchship.launch.slurm.cluster import _ended
from torchship.launch.slurm.follow import Tail
from torchship.launch.slurm.held import Held
from torchship.oci.prune import prune
from torchship.oci.store import Store
from torchship.progress import SILENT

JOB = "store/launch/job-x"


@pytest.fixture
def held(tmp_path):
    """Give a job with one step."""
    folder = tmp_path / "store/launch/job-x"
    folder.mkdir(parents=True)
    made = Held("mnist-x", folder, time_limit=None, progress=SILENT)
    made.number = "7"
    made.next_step()
    yield made
    made._over.set()


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Give what puts a program of Slurm's first on the path: lines of shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name: str, text: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    return put


def test_a_job_whose_epilog_runs_is_not_cancelled(held, tmp_path, programs):
    """A job that has ended is left alone, though Slurm still lists it."""
    programs("squeue", "echo 'COMPLETING|None|n1'")
    programs("scancel", f"touch {tmp_path}/cancelled")
    held.cancel()
    assert not (tmp_path / "cancelled").exists()
    assert not (tmp_path / JOB).exists()


def test_prune_takes_what_is_left_of_jobs_that_nobody_holds(held, tmp_path):
    """The folder of a torchship that was killed goes, with the values of variables in it."""
    left = tmp_path / "store/launch/job-y"
    (left / "step-1").mkdir(parents=True)
    for name in ("lease", "step-1/start"):
        (left / name).touch()
    prune(Store(tmp_path / "store"))
    assert not left.exists()
    assert (tmp_path / JOB / "lease").exists()
    held._lease.close()
    prune(Store(tmp_path / "store"))
    assert not (tmp_path / JOB).exists()


def test_what_was_printed_last_is_passed_on_when_the_job_ends_early(held, tmp_path, programs):
    """A job that Slurm ends is looked at once more before its error is raised."""
    step = tmp_path / JOB / "step-1"
    for name in ("status", "stdout"):
        (step / name).touch()
    programs("squeue", f"echo last words >>{step}/stdout; echo Invalid job id >&2; exit 1")
    programs("scontrol", "echo JobState=TIMEOUT Reason=TimeLimit ExitCode=0:15")
    with (tmp_path / "log").open("wb") as log:
        tail = Tail(step / "stdout", (log.fileno(),))
        with pytest.raises(EngineError, match="longer than its time limit"):
            _ended(held, tail)
    assert (tmp_path / "log").read_text() == "last words\n"


@pytest.mark.parametrize(
    ("text", "status"), [(b"", None), (b"1", None), (b"0\n", 0), (b"137\n", 137)]
)
def test_a_status_counts_when_its_line_is_whole(held, tmp_path, text, status):
    """Half of a number is none."""
    (tmp_path / JOB / "step-1/status").write_bytes(text)
    assert held.status() == status


@pytest.mark.parametrize("text", [b"\xff\xfe\n", b"-1\n", b"0\n0\n", b"9" * 5000])
def test_what_is_no_status_is_told(held, tmp_path, text):
    """Something else in its place is one clear error."""
    (tmp_path / JOB / "step-1/status").write_bytes(text)
    with pytest.raises(EngineError, match="without an exit status"):
        held.status()
