"""examples/mnist-fast/main.py, run as a user runs it, by one process and by two."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from tests.examples import programs
from tests.examples.programs import FAULTS, draw

MAIN = programs.EXAMPLES / "mnist-fast" / "main.py"
SHORT = ("--epochs", 2, "--batch-size", 64)  # six steps on the digits drawn here
OUTPUTS = ("confusion.json", "metrics.json", "metrics.jsonl", "mnist_fast.pt")


def run(python: str, folder: Path, *arguments: object, code: str | None = None, **environment):
    """Run main.py, or some code about it, as a process of its own."""
    script = ["-c", code] if code else [MAIN]
    return programs.run([python, *script, *arguments], folder, **environment)


def ask(python: str, folder: Path, code: str) -> dict[str, object]:
    """Return what code leaves in `said`, with main.py imported."""
    code = f"import sys; sys.path.insert(0, {str(MAIN.parent)!r})\nimport json, main, torch\n{code}"
    done = run(python, folder, code=code + "\nprint(json.dumps(said))")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of everything that a run wrote."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.fixture
def port() -> int:
    """Return a loopback port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def rank(number: int, size: int, port: int) -> dict[str, str]:
    """Return the variables by which a process knows which of them it is."""
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(number)}
    return {"RANK": str(number), "WORLD_SIZE": str(size), **here}


@pytest.fixture(scope="module")
def alone(python, drawn, tmp_path_factory):
    """Train once, in one process; return its folder and what it printed."""
    folder = tmp_path_factory.mktemp("alone")
    done = run(python, folder, *SHORT, "--data", drawn, "--save-model", "--deterministic")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "output", done.stdout


def test_what_a_run_prints_and_writes(alone, drawn):
    """A run prints its progress, and leaves metrics without any times, and a confusion matrix."""
    output, printed = alone
    assert {p.name for p in output.iterdir()} == set(OUTPUTS)
    lines = printed.splitlines()
    assert lines[0] == f"Data: not MNIST, 200 training and 100 test images from {drawn}"
    assert re.fullmatch(r"Train Step: 6/6\tEpoch: 1\.92\tLoss: \d\.\d{6}", lines[2])
    found = re.search(r"\n\nTest set: Average loss: (\S+), Accuracy: (\d+)/100 \((\S+)%\)\n\n",
                      printed)  # fmt: skip
    assert found
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics.keys() == {"test_accuracy", "test_loss", "epochs"}
    assert round(metrics["test_accuracy"] * 100) == int(found[2])
    curve = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [point["step"] for point in curve] == [3, 6]
    assert all(point.keys() == {"step", "epoch", "lr", "train_loss"} for point in curve)


def test_the_confusion_matrix(alone, drawn):
    """Rows are true digits, columns what was read; what was misread is there to be looked at."""
    output, _ = alone
    document = json.loads((output / "confusion.json").read_text())
    matrix, misread = document["matrix"], document["misread"]
    labels = gzip.decompress((drawn / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    images = gzip.decompress((drawn / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    assert document["labels"] == list("0123456789")
    assert [sum(row) for row in matrix] == [labels.count(digit) for digit in range(10)]
    right = sum(matrix[digit][digit] for digit in range(10))
    accuracy = json.loads((output / "metrics.json").read_text())["test_accuracy"]
    assert right == round(100 * accuracy)
    assert len(misread) == 100 - right > 0
    assert [m["confidence"] for m in misread] == sorted(
        (m["confidence"] for m in misread), reverse=True
    )
    for one in misread:
        at = one["index"]
        assert one["label"] == labels[at] != one["predicted"]
        assert 0.1 <= one["confidence"] <= 1
        assert base64.b64decode(one["pixels"]) == images[784 * at : 784 * (at + 1)]


def test_a_seed_gives_the_same_bits(python, drawn, alone, tmp_path):
    """Two runs with one seed have the same weights and files, byte for byte; another seed not."""
    for name, seed in (("same", 1), ("other", 2)):
        done = run(python, tmp_path, *SHORT, "--data", drawn, "--save-model", "--deterministic",
                   "--seed", seed, TORCHSHIP_OUTPUT=name)  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "same") == digests(alone[0])
    other = digests(tmp_path / "other")
    assert [name for name in OUTPUTS if other[name] == digests(alone[0])[name]] == []


def test_two_processes_share_each_batch(python, drawn, alone, tmp_path):
    """Under torchrun two processes see one's batches; the first alone prints and writes."""
    command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    arguments = [*SHORT, "--distributed", "--data", drawn, "--save-model"]
    done = programs.run([*command, MAIN, *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Data: ") == done.stdout.count("Test set: ") == 1
    assert "(processes: 2, threads of each: 1)" in done.stdout
    assert set(digests(tmp_path / "output")) == set(OUTPUTS)
    curves = [
        [json.loads(line)["train_loss"] for line in (folder / "metrics.jsonl").open()]
        for folder in (alone[0], tmp_path / "output")
    ]
    # the same images; each half of a batch is normalised by itself
    assert curves[1] == pytest.approx(curves[0], rel=0.1)


def test_a_process_that_dies_ends_the_others(python, drawn, tmp_path, port):
    """When a process is killed, the other says so in one line and fails, within seconds."""
    command = [python, MAIN, "--epochs", "10000", "--batch-size", "64", "--data", drawn]
    one, other = (
        subprocess.Popen(
            list(map(str, command)),
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
                 **rank(number, 2, port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    )  # fmt: skip
    try:
        assert one.stdout
        for line in one.stdout:
            if line.startswith("Train Step:"):
                break
        other.send_signal(signal.SIGKILL)
        said = one.communicate(timeout=60)[1].splitlines()
        assert one.returncode == 1
        assert len(said) == 1, said
        assert said[0].startswith("main.py: error: process 0 of 2 lost the others")
    finally:
        for process in (one, other):
            process.kill()
            process.communicate()


def refusal(done) -> str:
    """Return the one line with which a run was refused."""
    assert done.returncode == 1, done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("main.py: error: ")
    return done.stderr


def test_a_port_that_is_taken(python, drawn, tmp_path):
    """The process that should listen on a port that another program has says so in one line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refusal(run(python, tmp_path, "--data", drawn, **rank(0, 2, port)))
    assert f"cannot meet the others at 127.0.0.1:{port}" in said
    assert "in use" in said


def test_processes_that_cannot_share(python, drawn, tmp_path, port):
    """A batch that the processes cannot share equally is refused before they wait."""
    said = refusal(run(python, tmp_path, "--data", drawn, **rank(0, 3, port)))
    assert "--batch-size 256" in said
    assert "a multiple of 3" in said


ENVIRONMENTS = {
    "none": ({}, "--distributed needs the variables that torchrun sets"),
    "no rank": ({"WORLD_SIZE": "2"}, "RANK is None"),
    "no number": ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is 'two'"),
    "beyond": ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2, and WORLD_SIZE 2"),
}


@pytest.fixture(scope="module")
def said(python, drawn, tmp_path_factory) -> dict[str, dict[str, object]]:
    """Ask main.py's functions many things in one process, since torch starts slowly."""
    root = tmp_path_factory.mktemp("said")
    for fault, (damage, _) in FAULTS.items():
        damage(Path(shutil.copytree(drawn, root / fault)))
    return ask(
        python,
        root,
        f"""if True:
        import argparse, os
        said = dict(faults={{}}, environments={{}}, laps={{}}, shares={{}})
        for fault in {list(FAULTS)!r}:
            try:
                main.load(fault, "train")
            except main.UserError as error:
                said["faults"][fault] = str(error)
        for name, variables in { ({k: v[0] for k, v in ENVIRONMENTS.items()})!r}.items():
            for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
                os.environ.pop(variable, None)
            os.environ.update(variables)
            try:
                main.World.of(argparse.Namespace(batch_size=256, distributed=True))
            except main.UserError as error:
                said["environments"][name] = str(error)
        main.MIRRORS = ()
        try:
            main.prepare("missing")
        except main.UserError as error:
            said["missing"] = str(error)
        for steps in (1, 2, 3, 4, 35, 36, 100):
            taken = []
            ends = list(main.laps(lambda: taken.append(1), steps, 20, main.World(),
                        torch.device("cpu")))
            said["laps"][steps] = [len(taken), ends]
        places = main.draw(100, 6, 30, 1)
        said["places"] = [list(places.shape), [sorted(e[:, 0].flatten().tolist()) for e in
                          (places[:3], places[3:])], places[:, 1:].unique().tolist()]
        images = torch.arange(2 * 784).view(2, 28, 28)
        crop = main.cut(main.windows(images), torch.tensor([1]), 3, 1)[0, 0]
        said["crop"] = (crop * main.DEVIATION + main.MEAN).round().long().tolist()
        said["rates"] = main.schedule(8, 2.0).tolist()""",
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_data(said, fault):
    """Data that cannot be used gives one sentence that names the file and the fault."""
    message = said["faults"][fault]
    assert message.startswith(f"{fault}/train-")
    assert FAULTS[fault][1] in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_bad_environments(said, name):
    """Variables that do not say which process this is are named."""
    assert ENVIRONMENTS[name][1] in said["environments"][name]


def test_data_that_is_nowhere(said):
    """Files that are missing and cannot be downloaded are named, with what to do."""
    assert said["missing"].startswith("no mirror gave train-images-idx3-ubyte.gz")
    assert "--data" in said["missing"]


def test_laps_cover_all_steps(said):
    """Whatever the number of steps, each is taken once, and the last lap ends with the last."""
    for steps, (taken, ends) in said["laps"].items():
        assert taken == ends[-1] == int(steps)
        assert ends == sorted(set(ends))


def test_batches_hold_each_image_once_an_epoch(said):
    """An epoch's batches hold different images, as many as whole batches have, moved by a pixel."""
    shape, epochs, corners = said["places"]
    assert shape == [6, 3, 30]
    assert all(len(set(epoch)) == 90 for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert corners == [1, 2, 3]


def test_crops(said):
    """A crop is the 24 x 24 pixels that start at its row and column."""
    assert said["crop"] == [
        [784 + 28 * row + column for column in range(1, 25)] for row in range(3, 27)
    ]


def test_the_schedule(said):
    """The rate rises for a quarter and then falls; the last quarter is averaged evenly."""
    rates = [rate for rate, _ in said["rates"]]
    assert rates[:2] == [1.0, 2.0]
    assert rates[1:] == pytest.approx([2 * left / 7 for left in range(7, 0, -1)])
    assert [part for _, part in said["rates"]] == [0, 0, 0, 0, 0, 0, 1, 0.5]


def test_bad_arguments(python, drawn, tmp_path):
    """Bad data, and an --output that cannot be made, end the run with one line and status 1."""
    assert run(python, tmp_path, "--epochs", 0).returncode == 2
    assert "more than the 200" in refusal(run(python, tmp_path, "--data", drawn))
    draw(tmp_path / "digits")
    FAULTS["truncated"][0](tmp_path / "digits")
    said = refusal(run(python, tmp_path, "--data", "digits"))
    assert said.startswith("main.py: error: digits/train-")
    (tmp_path / "file").touch()
    said = refusal(run(python, tmp_path, *SHORT, "--data", drawn, "--output", "file/below"))
    assert "Not a directory" in said


def test_divergence_is_an_error(python, drawn, tmp_path):
    """A loss that is no number any more ends the run, and no metrics.json is left of any run."""
    (tmp_path / "output").mkdir()
    older = tmp_path / "output" / "metrics.json"
    older.write_text("{}")
    said = refusal(run(python, tmp_path, *SHORT, "--data", drawn, "--lr", "1e30"))
    assert "diverged" in said
    assert not older.exists()
