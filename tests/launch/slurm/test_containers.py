"""What a container of a step sees of the nodes."""

from pathlib import Path

import pytest
from tests.launch.slurm.test_batch import asked

from torchship.launch.slurm import containers
from torchship.launch.slurm.containers import INSIDE, MOUNTED, Step

STEP = Step(job=asked("sh"), folder=Path("/job/step-1"), output=Path("/out"))


def test_no_file_that_others_read_can_be_written_by_a_program():
    """Only the output, and one file that tells nothing but that there is something in it."""
    binds = containers.binds(STEP)
    writable = {str(bind.source) for bind in binds if not bind.read_only}
    assert writable == {f"/job/step-1/{INSIDE}/begun", "/out"}
    assert [bind.target for bind in binds if bind.read_only] == [MOUNTED]


@pytest.mark.parametrize("runtime", ["docker", "podman", "apptainer"])
def test_programs_of_the_nodes_mount_what_binds_says(runtime):
    """Each mount is on the command line, read-only where it is to be."""
    text = containers.files(STEP, runtime)["node"]
    assert text.count("--mount=") == 3
    assert text.count(f"destination={MOUNTED},ro") == 1
    assert '"source=/job/step-1"' not in text
