"""What Slurm's own programs say, and what is made of it."""

import pytest

from torchship.launch.slurm.queue import Ended, State, refused, why


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        (
            "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
            "Slurm refuses the job: Invalid partition name specified",
        ),
        (
            "sbatch: error: QOSMaxNodePerUserLimit\n"
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
            "(job submit limit, user's size and/or time limits)\n",
            "Slurm refuses the job: Job violates accounting/QOS policy "
            "(job submit limit, user's size and/or time limits)",
        ),
        ("", "Slurm refuses the job: it did not say why"),
        (
            "sbatch: fatal: Could not establish a configuration source\n",
            "no Slurm cluster can be reached from here",
        ),
    ],
)
def test_what_slurm_objects_to_is_told(printed, told):
    """The reason comes without what each of Slurm's layers puts before it."""
    assert told in refused(printed).message


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (Ended(word="TIMEOUT", status=0), "longer than its time limit of 60 seconds"),
        (Ended(word="OUT_OF_MEMORY", status=0), "needed more memory"),
        (Ended(word="CANCELLED", status=0), "cancelled by somebody else"),
        (Ended(word="NODE_FAIL", status=1), "a node of job 7 failed"),
        (Ended(word="FAILED", status=3, reason="NonZeroExitCode"), "(FAILED, NonZeroExitCode)"),
        (None, "job 7 is gone"),
    ],
)
def test_what_ended_a_job_is_told(ended, told):
    """Each of Slurm's words becomes a sentence."""
    assert told in why("7", ended, time_limit=60).message


@pytest.mark.parametrize("reason", ["PartitionTimeLimit", "BadConstraints", "InvalidQOS"])
def test_a_job_that_nothing_lets_begin_is_hopeless(reason):
    """Reasons that time does not heal are told apart from those that it does."""
    assert State(word="PENDING", reason=reason).hopeless
    assert not State(word="RUNNING", reason=reason).hopeless
    for passing in ("Priority", "Resources", "QOSMaxCpuPerUserLimit", "None"):
        assert not State(word="PENDING", reason=passing).hopeless
