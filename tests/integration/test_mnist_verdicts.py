"""Author and reproducer on the real MNIST: two users, two stores, one registry, five verdicts.

What is trained is `examples/mnist-fast`, on the first 2,560 of the 60,000 images, which is enough
for nine right answers in ten, and leaves a spread between seeds that is real. The 10,000 test
images are all there. The author has one processor: two threads that wait for each other on a busy
machine take many times as long.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.registry import RunningRegistry
from tests.machine import TORCHSHIP, Machine

from torchship.digest import Digest
from torchship.engines import namespaces
from torchship.oci.image import read_one
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.project import lock as lockfile
from torchship.project import project as projects
from torchship.runs import publishing
from torchship.runs.record import Record

pytestmark = [pytest.mark.engine, pytest.mark.network, pytest.mark.slow]

EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist-fast"
REQUIRED = os.environ.get("TORCHSHIP_REQUIRE_ENGINES") == "1"
SYSTEM_PYTHON = "/usr/bin/python3"
NEEDS_TWO = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 and not REQUIRED, reason="needs two processors"
)

RATE = '"--lr", type=float, default=0.01'
ONE_CPU = ("--engine", "native", "--cpus", "1")
TWO_CPUS = ("--engine", "native", "--cpus", "2")
COMMAND = ("--", "python", "main.py", "--limit", "2560", "--epochs", "1", "--save-model")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The two machines, the registry between them, and what the author has published."""

    author: Machine
    reader: Machine
    registry: RunningRegistry
    project: Path
    reference: str

    @property
    def record(self) -> Record:
        """The author's record."""
        return publishing.read(self.author.root / "authors").record

    def reproduce(self, reference: str, *options: str):
        """Reproduce as the other user."""
        return self.reader.torchship("reproduce", reference, *options)


@pytest.fixture(scope="module")
def mirrors() -> str:
    """Give the folders that hold MNIST."""
    folders = os.environ.get("TORCHSHIP_MIRRORS", "")
    wanted = {Path(data.path).name for data in projects.load(EXAMPLE).data}
    found = {
        file.name for each in folders.split(os.pathsep) if each for file in Path(each).iterdir()
    }
    if not wanted <= found:
        pytest.skip("TORCHSHIP_MIRRORS names no folder with MNIST")
    return folders


@pytest.fixture(scope="module")
def stage(shared_registry: RunningRegistry, mirrors: str) -> Iterator[Stage]:
    """Record five runs of the author's, and publish them."""
    obstacle = namespaces.obstacle()
    if obstacle is not None:
        (pytest.fail if REQUIRED else pytest.skip)(obstacle.reason)
    with tempfile.TemporaryDirectory(prefix="torchship-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        root.chmod(0o755)  # pytest's own folders let no other user through
        author = _machine(root / "author", 1000, mirrors)
        reader = _machine(root / "reader", 1001, "")
        project = author.root / "mnist"
        shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("__pycache__", "runs"))
        _share_downloads(author.home)
        _give(author, 1000)
        reference = f"{shared_registry.host}/author/mnist:v1"
        _answer(author, "record", project, *ONE_CPU, "--no-repeat", "-o", "authors", *COMMAND)
        _answer(author, "publish", reference, "authors")
        yield Stage(
            author=author,
            reader=reader,
            registry=shared_registry,
            project=project,
            reference=reference,
        )


def _machine(root: Path, uid: int, mirrors: str) -> Machine:
    """Return a user's machine: another user's than the test's own, where the test is root."""
    for folder in ("home", "tmp", "store"):
        (root / folder).mkdir(parents=True)
    kept = {
        name: text
        for name, text in os.environ.items()
        if name in ("PATH", "LANG") or name.startswith("PIP_") or name.lower().endswith("_proxy")
    }
    found = Machine(
        root=root,
        environment={
            **kept,
            "HOME": str(root / "home"),
            "TMPDIR": str(root / "tmp"),
            "TORCHSHIP_HOME": str(root / "store"),
            "TORCHSHIP_MIRRORS": mirrors,
        },
    )
    if os.geteuid() != 0:
        return found
    _give(found, uid)
    # The test's own Python may lie where nobody but root can look
    packages = os.pathsep.join(path for path in sys.path if path.endswith(("/src", "-packages")))
    user = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", SYSTEM_PYTHON)
    found = Machine(
        root=root,
        environment={**found.environment, "PYTHONPATH": packages},
        program=(*user, *TORCHSHIP[1:]),
    )
    tried = subprocess.run(
        [*found.program, "--version"], env=found.environment, capture_output=True, text=True
    )
    if tried.returncode != 0:
        said = f"{SYSTEM_PYTHON} cannot run torchship as user {uid}: {tried.stderr[-500:]}"
        (pytest.fail if REQUIRED else pytest.skip)(said)
    return found


def _share_downloads(home: Path) -> None:
    """Link the pins that the test's own store has downloaded before, so that torch comes once."""
    known = Store.open().downloads
    entry = lockfile.load(EXAMPLE / "torchship.lock").platform(Platform.host())
    for pin in (*entry.wheels, *entry.base.packages):
        place = Path(pin.digest.hex[:2]) / pin.digest.hex
        for file in (known / place).glob("[!.]*"):
            (home / "downloads" / place).mkdir(parents=True, exist_ok=True)
            try:
                (home / "downloads" / place / file.name).hardlink_to(file)
            except OSError:  # another file system, or a link that this user may not make
                shutil.copyfile(file, home / "downloads" / place / file.name)


def _give(machine: Machine, uid: int) -> None:
    """Give a user the folders below a machine's root; linked files stay whose they are."""
    if os.geteuid() == 0:
        for folder, _, files in os.walk(machine.root):
            os.chown(folder, uid, uid)
            for name in files:
                file = Path(folder, name)
                if file.lstat().st_nlink == 1:
                    os.chown(file, uid, uid, follow_symlinks=False)


def _edit(project: Path, before: str, after: str) -> None:
    text = (project / "main.py").read_text()
    assert text.count(before) == 1, f"the example no longer says {before}"
    (project / "main.py").write_text(text.replace(before, after))


def _answer(machine: Machine, *arguments: str | Path):
    answer = machine.torchship(*arguments)
    assert answer.status == 0, answer.err
    return answer


def test_the_record(stage):
    """Five runs with a spread, of real weights, on the published data."""
    found = stage.record
    accuracy = next(claim for claim in found.claims if claim.name == "test_accuracy")
    assert (accuracy.n, accuracy.examples, accuracy.better) == (5, 10_000, "higher")
    assert 0.8 < accuracy.mean < 0.99
    assert 0 < accuracy.spread < 0.1
    assert found.software.torch.startswith("2.")
    assert found.hardware.instruction_set
    assert {Path(file.name).name: file.digest.hex for file in found.data} == {
        Path(data.path).name: data.digest.hex for data in projects.load(EXAMPLE).data
    }
    assert [list(run.tensors) for run in found.runs] == [["mnist_fast.pt"]] * 5
    if os.geteuid() == 0:
        owners = {machine.home.stat().st_uid for machine in (stage.author, stage.reader)}
        assert owners == {1000, 1001}


def test_the_same_bits(stage):
    """Another user with another store gets the author's bits: metrics, weights, all outputs."""
    answer = stage.reproduce(stage.reference, *ONE_CPU, "-o", "same")
    assert answer.status == 0, answer.out + answer.err
    assert answer.out.startswith("BIT-IDENTICAL: every metric and every output of the run with")
    assert "expect: the same model of processor" in answer.err


@NEEDS_TWO
def test_another_number_of_threads(stage):
    """Two threads sum in another order: other last digits, and within the tolerance."""
    answer = stage.reproduce(stage.reference, *TWO_CPUS, "-o", "two-threads")
    assert answer.status == 0, answer.out + answer.err
    assert answer.out.startswith("WITHIN TOLERANCE: all 2 claims hold")
    assert "torch takes 2 threads here, and took 1 there" in answer.err
    assert "first difference of seed 1 in metrics.jsonl: step " in answer.out
    causes = answer.out.partition("the most likely cause first:\n")[2]
    assert causes.startswith("  threads: ")


def test_a_changed_learning_rate_behind_the_same_command(stage):
    """Another image under the name is not run for the record; a record forged for it fails."""
    changed = stage.author.root / "changed"
    shutil.copytree(stage.project, changed)
    _edit(changed, RATE, RATE.replace("0.01", "0.0001"))
    _give(stage.author, 1000)
    digest = Digest.parse(_answer(stage.author, "build", changed, "-t", "changed").out.strip())
    reference = stage.reference.replace("/mnist:", "/changed:")
    _answer(stage.author, "tag", "changed", reference)
    _answer(stage.author, "push", reference)
    answer = stage.reproduce(reference, *ONE_CPU, "--record", str(stage.author.root / "authors"))
    assert answer.status == 4
    assert "is about another image" in answer.out
    honest = (stage.author.root / "authors/record.json").read_text()
    forged = honest.replace(stage.record.image.manifest.hex, digest.hex)
    (stage.author.root / "forged.json").write_text(forged)
    _answer(stage.author, "publish", reference, "forged.json")
    answer = stage.reproduce(reference, *ONE_CPU)
    assert answer.status == 1, answer.out + answer.err
    assert answer.out.startswith("NOT REPRODUCED: test_accuracy: the difference is beyond the tol")
    assert "(worse)" in answer.out


@NEEDS_TWO
def test_too_few_runs(stage):
    """One run each, with other last digits: nobody can tell."""
    one = ("--runs", "1", "--no-repeat", "-o", "few")
    _answer(stage.author, "record", stage.project, *ONE_CPU, *one, *COMMAND)
    given = ("--record", str(stage.author.root / "few"))
    answer = stage.reproduce(stage.reference, *TWO_CPUS, *given)
    assert answer.status == 3, answer.out + answer.err
    assert answer.out.startswith("INCONCLUSIVE: test_accuracy: consistent if errors are independ")
    assert "on 10000 examples" in answer.out


def test_a_damaged_data_file(stage):
    """MNIST with one byte changed in the registry is not run."""
    store = stage.author.store
    image = publishing.subject(store, stage.record)
    titled = "data /data/mnist/train-images-idx3-ubyte.gz"
    (layer,) = (each for each in read_one(store, image).layers if each.title == titled)
    path = stage.registry.blob_path(layer.digest)
    before = path.read_bytes()
    path.write_bytes(before[:-9] + bytes([before[-9] ^ 1]) + before[-8:])
    (stage.reader.root / "third").mkdir()
    _give(stage.reader, 1001)
    try:
        answer = stage.reader.with_store("third").torchship("reproduce", stage.reference, *ONE_CPU)
    finally:
        path.write_bytes(before)
    assert answer.status == 4, answer.out + answer.err
    assert answer.out.startswith("COULD NOT RUN: ")
    assert f"the blob that came is not {layer.digest}" in answer.out
