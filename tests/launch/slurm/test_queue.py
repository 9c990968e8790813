"""What Slurm's own programs say, and what is made of it."""

import pytest

from torchship.errors import EngineError
from torchship.launch.slurm.queue import Ended, Refused, State, refused, submit, why


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
    "printed",
    [
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n",
        "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received\n",
    ],
)
def test_an_answer_that_was_lost_is_no_refusal(printed):
    """The job may be there: it is looked for, and cancelled."""
    assert isinstance(refused(printed), EngineError)
    assert not isinstance(refused(printed), Refused)
    assert isinstance(refused("sbatch: error: Invalid qos specification"), Refused)


def test_what_the_user_says_here_counts_more_than_their_variables(tmp_path, monkeypatch):
    """A site's defaults stay where nothing else is said; what would change the job goes."""
    program = tmp_path / "sbatch"
    program.write_text(f"#!/bin/sh\ncat >/dev/null\nenv >{tmp_path}/seen\necho 7\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name, value in {
        "SBATCH_TIMELIMIT": "30",
        "SBATCH_PARTITION": "debug",
        "SBATCH_ARRAY_INX": "1-100",
        "SBATCH_WAIT": "1",
        "SLURM_CONF": "/etc/slurm.conf",
    }.items():
        monkeypatch.setenv(name, value)
    assert submit("#!/bin/bash\n#SBATCH --time=720\n#SBATCH --nodes=1\n") == "7"
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert {name for name in seen if name.startswith(("SBATCH_", "SLURM_"))} == {
        "SBATCH_PARTITION",
        "SLURM_CONF",
    }


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
