"""examples/mnist/main.py and examples/synthetic_digits.py, run as a user runs them."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import json
import re
import shutil
import struct
import threading
from pathlib import Path

import pytest
from tests.examples import programs
from tests.examples.programs import FAULTS, IMAGES, LABELS, draw

from torchship.project import lock
from torchship.runs import statement

MAIN = programs.EXAMPLES / "mnist" / "main.py"


def run(python: str, folder: Path, *arguments: object, code: str | None = None, **environment):
    """Run main.py, or some code about it, as a process of its own."""
    script = ["-c", code] if code else [MAIN]
    return programs.run([python, *script, *arguments], folder, **environment)


def test_synthetic_digits_are_repeatable(tmp_path):
    """The same seed draws the same images and labels; another seed draws others."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw(tmp_path / name, train=20, test=5, seed=seed)
    read = {
        name: [gzip.decompress((tmp_path / name / file).read_bytes()) for file in (IMAGES, LABELS)]
        for name in "abc"
    }
    assert read["a"] == read["b"]
    assert read["a"][0] != read["c"][0]
    assert read["a"][0][:16] == struct.pack(">4I", 0x0803, 20, 28, 28)
    assert len(read["a"][0]) == 16 + 20 * 784


def test_log_lines_and_metrics(python, digits, tmp_path):
    """A run prints the lines of PyTorch's own example and leaves metrics at full precision."""
    done = run(python, tmp_path, "--epochs", 2, "--data", digits, "--log-interval", 2)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == f"Data: not MNIST, 200 training and 100 test images from {digits}"
    assert re.fullmatch(r"Train Epoch: 1 \[0/200 \(0%\)\]\tLoss: \d\.\d{6}", lines[1])
    assert re.fullmatch(r"Train Epoch: 1 \[128/200 \(50%\)\]\tLoss: \d\.\d{6}", lines[2])
    found = re.search(r"\n\nTest set: Average loss: (\S+), Accuracy: (\d+)/100 \((\d+)%\)\n\n",
                      done.stdout)  # fmt: skip
    assert found
    metrics = json.loads((tmp_path / "output" / "metrics.json").read_text())
    curve = [
        json.loads(line)
        for line in (tmp_path / "output" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [step["epoch"] for step in curve] == [1, 2]
    assert f"{curve[0]['test_loss']:.4f}" == found[1]
    assert round(curve[0]["test_accuracy"] * 100) == int(found[2])
    assert [step["lr"] for step in curve] == [1.0, 0.7]
    assert metrics["epochs"] == 2
    assert metrics["test_loss"] == curve[1]["test_loss"]
    assert len(repr(metrics["test_loss"])) > 12


def test_a_seed_gives_the_same_bytes(python, digits, tmp_path):
    """Two runs with one seed write the same files, byte for byte; another seed does not."""
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        done = run(python, tmp_path, "--dry-run", "--epochs", 2, "--data", digits, "--save-model",
                   "--deterministic", "--seed", seed, TORCHSHIP_OUTPUT=name)  # fmt: skip
        assert done.returncode == 0, done.stderr
    for file in ("metrics.json", "metrics.jsonl", "mnist_cnn.pt"):
        first, second, other = (
            hashlib.sha256((tmp_path / name / file).read_bytes()).digest() for name in "abc"
        )
        assert first == second, file
        assert first != other, file


def test_flags_and_defaults(python, tmp_path):
    """The flags and their defaults are those of PyTorch's own example."""
    code = f"""if True:
        import sys; sys.path.insert(0, {str(MAIN.parent)!r})
        import json, main
        print(json.dumps(vars(main.parse_arguments())))"""
    stock = {
        "batch_size": 64,
        "test_batch_size": 1000,
        "epochs": 14,
        "lr": 1.0,
        "gamma": 0.7,
        "no_accel": False,
        "dry_run": False,
        "seed": 1,
        "log_interval": 10,
        "save_model": False,
    }
    found = json.loads(run(python, tmp_path, code=code, TORCHSHIP_OUTPUT="/here").stdout)
    assert stock.items() <= found.items()
    assert found.keys() - stock.keys() == {"deterministic", "data", "output"}
    assert found["output"] == "/here"
    assert json.loads(run(python, tmp_path, "--no-cuda", code=code).stdout)["no_accel"]


@pytest.fixture(scope="module")
def refusals(python, drawn, tmp_path_factory) -> dict[str, str]:
    """Return what main.py says of each fault; one process for all, since torch starts slowly."""
    root = tmp_path_factory.mktemp("faults")
    for fault, (damage, _) in FAULTS.items():
        damage(Path(shutil.copytree(drawn, root / fault)))
    code = f"""if True:
        import sys; sys.path.insert(0, {str(MAIN.parent)!r})
        import json, main
        said = {{}}
        for fault in {list(FAULTS)!r}:
            try:
                main.load(fault, "train", "cpu")
            except main.DataError as error:
                said[fault] = str(error)
        print(json.dumps(said))"""
    done = run(python, root, code=code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_data(refusals, fault):
    """Data that cannot be used gives one sentence that names the file and the fault."""
    assert refusals[fault].startswith(f"{fault}/train-")
    assert FAULTS[fault][1] in refusals[fault]
    assert "\n" not in refusals[fault]


def test_bad_data_ends_the_run(python, digits, tmp_path):
    """Such data ends the run with that one line on stderr and status 1, without a traceback."""
    FAULTS["truncated"][0](digits)
    done = run(python, tmp_path, "--data", digits)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"main.py: error: {digits}/train-")


def test_bad_arguments(python, digits, tmp_path):
    """A count below one is a usage error; an --output that cannot be made stops the run early."""
    assert run(python, tmp_path, "--epochs", 0).returncode == 2
    (tmp_path / "file").touch()
    done = run(python, tmp_path, "--data", digits, "--output", "file/below")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["main.py: error: [Errno 20] Not a directory: 'file/below'"]
    assert "Train Epoch" not in done.stdout


def test_divergence_is_an_error(python, digits, tmp_path):
    """A loss that is no number any more ends the run, and never reaches metrics.json."""
    done = run(python, tmp_path, "--data", digits, "--lr", "1e30", "--epochs", 2)
    assert done.returncode == 1
    assert "diverged" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "output" / "metrics.json").exists()


@pytest.fixture
def mirror(digits):
    """Serve the digits' folder on loopback, as a mirror does."""
    handler = functools.partial(_QuietHandler, directory=str(digits))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *arguments):
        """Say nothing."""


def prepare(python, folder, mirrors, digests):
    """Let main.py download files into `data`, with mirrors and digests of the test's own."""
    code = f"""if True:
        import sys; sys.path.insert(0, {str(MAIN.parent)!r})
        import main
        main.MIRRORS, main.MNIST = {mirrors!r}, {digests!r}
        try:
            main.prepare("data")
        except main.DataError as error:
            sys.exit(str(error))"""
    return run(python, folder, code=code, no_proxy="127.0.0.1")


def test_download(python, digits, mirror, tmp_path):
    """Missing files come from the first mirror that has the right bytes; present ones stay."""
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in digits.iterdir()}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / LABELS).write_bytes(b"mine")
    done = prepare(python, tmp_path, (f"{mirror}nothing/", mirror), digests)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / LABELS).read_bytes() == b"mine"
    assert (tmp_path / "data" / IMAGES).read_bytes() == (digits / IMAGES).read_bytes()
    assert {p.name for p in (tmp_path / "data").iterdir()} == set(digests)


def test_download_of_other_bytes(python, digits, mirror, tmp_path):
    """What a mirror sends is kept only when its sha256 is the published one."""
    done = prepare(python, tmp_path, (mirror,), {IMAGES: "0" * 64})
    assert done.returncode == 1
    assert f"no mirror gave {IMAGES}" in done.stderr
    assert "sha256 differs" in done.stderr
    assert list((tmp_path / "data").iterdir()) == []


def test_the_record_of_fourteen_epochs_is_what_the_readme_says():
    """Three runs by the defaults, on the data that the lock pins, and their accuracies."""
    project = programs.EXAMPLES / "mnist"
    raw = (project / "records" / "14-epochs.json").read_bytes()
    record = statement.parse(raw, "records/14-epochs.json")
    assert record.command == ("python", "main.py")
    assert [run.seed for run in record.runs] == [1, 2, 3]
    pinned = {str(pin.digest) for pin in lock.load(project / "torchship.lock").data}
    assert {str(used.digest) for used in record.data} == pinned
    reached = [run.metrics["test_accuracy"] for run in record.runs]
    assert sum(reached) / 3 >= 0.99
    assert [run.metrics["epochs"] for run in record.runs] == [14, 14, 14]
    told = ", ".join(f"{accuracy:.2%}" for accuracy in reached)
    assert f"| 14 | {told} (seeds 1 to 3) |" in (project / "README.md").read_text()
