"""The texts of a Slurm job: run by real shells, with everything that could break out of them."""

import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.launch.test_job import IMAGE, REFERENCE, SHAPE

from torchship.engines.request import Request
from torchship.errors import UsageError
from torchship.launch.job import Shape, job
from torchship.launch.slurm import batch, containers
from torchship.launch.slurm.containers import Step
from torchship.launch.slurm.runtime import RUNTIMES

EVIL = "it's $(touch evil) `touch evil` \"; touch evil\n# \\"


def asked(*command, shape=SHAPE, **variables):
    """Return a job of a command."""
    request = Request(
        image=replace(IMAGE, workdir="/", environment={"PATH": "/usr/bin:/bin", "SET": EVIL}),
        command=command,
        environment=variables,
        output=Path("out"),
    )
    return job(request, reference=REFERENCE, shape=shape)


def test_start_gives_the_program_its_variables_and_nothing_of_the_node(tmp_path):
    """Values and words arrive as they are; no text of anybody's is run by a shell."""
    program = 'printf "%s|" "$SET" "$GIVEN" "$NODES_OWN" "$SLURM_JOB_ID" "$@"'
    made = asked("sh", "-c", program, EVIL, EVIL, shape=Shape(), GIVEN=EVIL)
    (tmp_path / "start").write_text(batch.start(made))
    done = subprocess.run(
        ["sh", tmp_path / "start", "0"],
        env={"PATH": "/usr/bin:/bin", "NODES_OWN": "secret", "SLURM_JOB_ID": "7"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{EVIL}|{EVIL}||7|{EVIL}|"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "start"]


def test_start_tells_torchrun_the_rank_and_the_head(tmp_path):
    """A job of several processes gets what only its node knows."""
    made = asked("sh")
    made = replace(made, command=("sh", "-c", 'echo "$PET_NODE_RANK $PET_MASTER_ADDR"'))
    (tmp_path / "start").write_text(batch.start(made))
    (tmp_path / "head").write_text("node-17\n")
    words = ["sh", str(tmp_path / "start"), "3"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "3 node-17\n"


def test_values_of_variables_are_not_printed():
    """A dry run shows names alone of what the user set."""
    text = batch.start(asked("sh", TOKEN="hidden"), secret=True)
    assert "export TOKEN=" in text
    assert "hidden" not in text


def test_an_image_cannot_name_a_variable_that_is_a_program():
    """What no shell takes for a name is refused, not run."""
    made = asked("sh")
    evil = replace(made, image=replace(made.image, environment={"A;touch evil;B": "x"}))
    with pytest.raises(UsageError, match="no shell takes"):
        batch.start(evil)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("gpus", [0, 2])
def test_every_text_is_bash(runtime, gpus, tmp_path):
    """Scripts parse, whatever folders are called."""
    folder = tmp_path / EVIL.replace("/", "_")
    made = asked("python", "main.py", shape=replace(SHAPE, gpus=gpus, cpus=2))
    step = Step(job=made, folder=folder, output=folder / "out")
    texts = [
        batch.script(made, folder, partition="a,b", account=None),
        batch.run(step, runtime, places=(folder,)),
        batch.SEE,
        batch.start(made),
        *(text for name, text in containers.files(step, runtime).items() if name == "node"),
    ]
    for text in texts:
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_the_script_asks_for_what_the_shape_says():
    """Amounts are rounded up to Slurm's units; what is left to the cluster is not named."""
    shape = Shape(nodes=2, memory=(1 << 30) + 1, time_limit=61, gpus=1)
    text = batch.script(asked("sh", shape=shape), Path("/job"), partition="p", account=None)
    for option in ("nodes=2", "mem=1025M", "time=0-00:02:00", "gres=gpu:1", "partition=p"):
        assert f"#SBATCH --{option}\n" in text
    assert "account" not in text
    assert "cpus-per-task" not in text


def test_a_place_that_a_node_does_not_see_is_told(tmp_path):
    """The check names the first missing place, and fails."""
    words = ["bash", "-c", batch.SEE, "see", tmp_path, tmp_path / "not there", tmp_path / "nor"]
    done = subprocess.run(
        words, env={"SLURMD_NODENAME": "n7"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == f"n7 does not see {tmp_path}/not there\n"


@pytest.mark.parametrize("evil", ["a b", "a\n#SBATCH --uid=0", ""])
def test_no_option_holds_another(evil):
    """A name cannot bring further options, or lines, into the script."""
    with pytest.raises(UsageError, match="no name"):
        batch.script(asked("sh"), Path("/job"), partition=evil, account=None)
