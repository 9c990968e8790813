"""Why a step failed."""

from pathlib import Path

from tests.launch.slurm.test_batch import asked

from torchship.launch.slurm import outcome
from torchship.launch.slurm.containers import BEGUN, INSIDE, Step
from torchship.progress import SILENT


def test_what_a_program_wrote_where_it_begins_is_not_read_as_text(tmp_path):
    """The one file that a program can write to may hold anything."""
    (tmp_path / INSIDE).mkdir()
    (tmp_path / INSIDE / BEGUN).write_bytes(b"\xff\xfe")
    (tmp_path / "srun.log").write_text("srun: error: n1: task 0: Exited with exit code 3\n")
    step = Step(job=asked("sh"), folder=tmp_path, output=Path("out"))
    assert outcome.failed(step, 9, b"", number="7", progress=SILENT) == 3
