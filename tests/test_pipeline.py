"""Locks that age, data that nobody serves, and how the demo goes on all the same."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from tests.machine import PLAIN, Machine, debian_packages, equipped
from tests.project.debian import DebianMirror

from torchship import pipeline
from torchship.digest import Descriptor, Digest
from torchship.engines.python import on_host
from torchship.engines.request import Mount, Request
from torchship.errors import DataUnavailable, MovedOn
from torchship.oci.image import Image
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT
from torchship.project import lock as lockfile
from torchship.project.project import load
from torchship.runs.run import RunDirectory

__all__ = ["debian_packages"]

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"
UNAVAILABLE = f"""
[[tool.torchship.data]]
path = "/data/train.gz"
sha256 = "{"0" * 64}"
urls = ["http://127.0.0.1:9/train.gz"]
"""


class Heard:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)

    def task(self, label, total=None):
        """Count nothing."""
        return SILENT.task(label, total)


@pytest.fixture
def aging(debian_packages, tmp_path) -> DebianMirror:
    """Give a mirror of the test's own, on which packages move on."""
    root = shutil.copytree(debian_packages.root, tmp_path / "mirror")
    files = {
        name: root / path.relative_to(debian_packages.root)
        for name, path in debian_packages.files.items()
    }
    return DebianMirror(root, stanzas=dict(debian_packages.stanzas), files=files)


@pytest.fixture
def machine(aging, tmp_path, monkeypatch) -> Machine:
    """Give a machine that uses it; this process is on that machine too."""
    found = equipped(tmp_path, aging)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("TORCHSHIP_MIRRORS", "TORCHSHIP_DEBIAN_SNAPSHOT", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)
    return found


def move_on(mirror: DebianMirror) -> None:
    """Replace a package by a newer version, as Debian's mirrors do."""
    mirror.add("bash", "1.1")
    mirror.publish()


def test_a_lock_whose_packages_moved_on(machine, aging):
    """`build` names what moved on and the command that mends it; that command mends it."""
    project = machine.project(requirements__txt="leaf\n")
    assert machine.torchship("lock", project).status == 0
    move_on(aging)
    said = machine.torchship("build", project).fails("bash 1.0 (now 1.1)")
    command = f"torchship lock --upgrade {project}"
    assert command in said
    assert machine.torchship(*command.split()[1:]).status == 0
    machine.build(project)


def test_an_image_that_is_built_needs_no_mirror(machine, aging):
    """What the store holds is not asked for again, whatever the mirrors do."""
    project = machine.project(requirements__txt="leaf\n")
    digest = machine.build(project)
    move_on(aging)
    assert machine.build(project) == digest


def test_a_snapshot_archive_serves_what_moved_on(machine, aging, tmp_path):
    """With TORCHSHIP_DEBIAN_SNAPSHOT the lock is built from as it is, years later."""
    project = machine.project()
    assert machine.torchship("lock", project).status == 0
    made = lockfile.load(project / "torchship.lock").created.strftime("%Y%m%dT%H%M%SZ")
    archive = tmp_path / "snapshots"
    shutil.copytree(aging.root, archive / "archive" / "debian" / made)
    move_on(aging)
    there = machine.with_environment(TORCHSHIP_DEBIAN_SNAPSHOT=archive.as_uri())
    there.build(project)


def test_locking_again_keeps_the_pins_that_hold(machine):
    """A platform that is added leaves the other's pins as they were."""
    project = load(machine.project(requirements__txt="leaf\n"))
    store, path = Store.open(), project.root / "torchship.lock"
    amd64, arm64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
    first = pipeline.locked(project, path, store=store, platforms=(amd64,), progress=SILENT)
    both = pipeline.locked(project, path, store=store, platforms=(arm64,), progress=SILENT)
    assert [entry.platform for entry in both.platforms] == [amd64, arm64]
    assert both.platform(amd64) == first.platform(amd64)
    again = path.read_bytes()
    assert pipeline.locked(project, path, store=store, platforms=(amd64,), progress=SILENT) == both
    assert path.read_bytes() == again


BOTH = 'platforms = ["linux/amd64", "linux/arm64"]\n'


def locked_platforms(root: Path) -> list[str]:
    """Return which platforms a project's lock holds."""
    entries = lockfile.load(root / "torchship.lock").platforms
    return [entry.platform.architecture for entry in entries]


def test_a_platform_that_was_given_up_is_not_resolved(machine):
    """Where a new requirement has no wheel for it, taking the platform out is the way on."""
    root = machine.project(settings=PLAIN + BOTH, requirements__txt="leaf\n")
    assert machine.torchship("lock", root).status == 0
    machine.wheel("grown", tag="cp311-cp311-manylinux_2_17_x86_64")
    machine.project(settings=PLAIN + BOTH, requirements__txt="leaf\ngrown\n")
    machine.torchship("build", root).fails("linux/arm64")
    assert locked_platforms(root) == ["amd64", "arm64"]
    machine.project(requirements__txt="leaf\ngrown\n")
    machine.build(root)
    assert locked_platforms(root) == ["amd64"]


def test_a_platform_that_is_locked_by_hand_leaves_the_others(machine):
    """`lock --platform` adds; without it, the lock holds what the project names."""
    root = machine.project(settings=PLAIN + BOTH, requirements__txt="leaf\n")
    assert machine.torchship("lock", root, "--platform", "linux/amd64").status == 0
    assert locked_platforms(root) == ["amd64"]
    (first,) = lockfile.load(root / "torchship.lock").platforms
    assert machine.torchship("lock", root, "--platform", "linux/arm64").status == 0
    assert locked_platforms(root) == ["amd64", "arm64"]
    assert lockfile.load(root / "torchship.lock").platform(first.platform) == first
    machine.project(requirements__txt="leaf\n")
    assert machine.torchship("lock", root).status == 0
    assert locked_platforms(root) == ["amd64"]


def test_a_damaged_lock_is_locked_afresh_when_asked(machine):
    """`lock` says what was wrong with the old one."""
    project = load(machine.project())
    path = project.root / "torchship.lock"
    path.write_text("version = 1\n")
    heard = Heard()
    pipeline.lock(project, path, store=Store.open(), progress=heard)
    assert any("locking afresh" in line for line in heard.lines)
    assert lockfile.load(path).platforms


# -- the demo


class Scribe:
    """An engine that only writes a metrics file, and ends with a status of its own."""

    name = "scribe"

    def __init__(self, text: str, status: int) -> None:
        self._text, self._status = text, status

    def missing(self):
        """Lack nothing."""

    def run(self, request):
        """Write it."""
        (request.output / "metrics.json").write_text(self._text)
        request.log.write_text("")
        return self._status


def ran(directory: RunDirectory, text: str, status: int, **asked) -> pipeline.Outcome:
    """Run an image with that engine."""
    document = Descriptor(media_type="application/json", digest=Digest.of(b""), size=0)
    image = Image(
        platform=Platform("linux", "amd64"),
        descriptor=document,
        config=document,
        layers=(),
        command=("python",),
    )
    request = Request(image=image, output=directory.output, log=directory.log, **asked)
    return pipeline.run(
        request, Scribe(text, status), image=image, name="mnist", directory=directory
    )


def test_a_run_with_damaged_metrics_keeps_its_record(tmp_path):
    """Hours of training are not lost: what is wrong is told, and the record is there."""
    directory = RunDirectory.at(tmp_path / "run")
    outcome = ran(directory, "{", status=0)
    assert "not JSON" in outcome.unread.message
    assert outcome.status == 0
    assert json.loads(directory.record.read_bytes())["predicate"]["runs"][0]["metrics"] == {}


def test_a_record_names_what_the_caller_added_and_tells_no_values(tmp_path):
    """Variables and mounts are part of what ran; what is in them may be a secret."""
    directory = RunDirectory.at(tmp_path / "run")
    mount = Mount(source=tmp_path / "private", target="/data")
    ran(directory, "{}", 0, environment={"WANDB_API_KEY": "hunter2"}, mounts=(mount,))
    found = json.loads(directory.record.read_bytes())["predicate"]
    assert (found["variables"], found["mounts"]) == (["WANDB_API_KEY"], ["/data"])
    for private in ("hunter2", "private"):
        assert private not in directory.record.read_text()


def test_metrics_that_are_no_numbers_are_told(tmp_path):
    """A loss that became NaN is no metric, and not to be passed over."""
    outcome = ran(RunDirectory.at(tmp_path / "run"), '{"acc": NaN, "loss": 0.5}', status=0)
    assert (dict(outcome.metrics), outcome.diverged) == ({"loss": 0.5}, ("acc",))


def test_a_failed_run_with_damaged_metrics_gives_its_own_status(tmp_path):
    """A program that was killed in the middle of writing them was killed: that is the answer."""
    directory = RunDirectory.at(tmp_path / "run")
    outcome = ran(directory, "{", status=137)
    assert (outcome.status, outcome.unread) == (137, None)
    assert directory.record.exists()


def test_a_run_that_no_record_can_hold_is_told_and_not_recorded(tmp_path):
    """A record that nobody can read is not written; the program's exit status is the answer."""
    directory = RunDirectory.at(tmp_path / "run")
    numbers = json.dumps({f"class_{place}": 0.5 for place in range(1001)})
    outcome = ran(directory, numbers, status=3)
    assert outcome.status == 3
    assert outcome.unrecorded is None  # of a failed run, nothing is claimed
    done = ran(RunDirectory.at(tmp_path / "other"), numbers, status=0)
    assert "predicate.claims has 1001 entries, more than 1000" in done.unrecorded.message
    assert (done.status, len(done.metrics)) == (0, 1001)
    assert not (tmp_path / "other/record.json").exists()


@pytest.fixture
def demo(machine, tmp_path, monkeypatch):
    """Give examples/demo.py, with examples of the test's own that are built in a second."""
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    examples = tmp_path / "examples"
    machine.project("examples/mnist", requirements__txt="leaf\n", settings=f'{PLAIN}name="mnist"\n')
    (examples / "synthetic_digits.py").write_text(
        "import pathlib, sys\np = pathlib.Path(sys.argv[1])\n"
        "p.mkdir(exist_ok=True)\n(p / 'digits').write_text('drawn')\n"
    )
    monkeypatch.setattr(module, "EXAMPLES", examples)
    monkeypatch.setattr(module, "SCRATCH", tmp_path / "scratch")
    return module


def test_the_demo_uses_the_committed_lock(demo, machine):
    """While its files can be had, the committed lock is what the demo builds from."""
    folder = demo.EXAMPLES / "mnist"
    assert machine.torchship("lock", folder).status == 0
    committed = (folder / "torchship.lock").read_bytes()
    name, image = demo.build(folder, Store.open(), SILENT)
    assert name == "mnist:demo"
    assert machine.store.find("mnist:demo") == image
    assert (folder / "torchship.lock").read_bytes() == committed
    assert not demo.SCRATCH.exists()


def test_the_demo_locks_afresh_beside_an_aged_lock(demo, machine, aging):
    """It says what moved on, leaves the committed lock as it is, and builds."""
    folder = demo.EXAMPLES / "mnist"
    assert machine.torchship("lock", folder).status == 0
    committed = (folder / "torchship.lock").read_bytes()
    move_on(aging)
    heard = Heard()
    demo.build(folder, Store.open(), heard)
    said = "\n".join(heard.lines)
    assert "bash 1.0 (now 1.1)" in said
    assert f"locking afresh in {demo.SCRATCH / 'mnist.lock'}" in said
    assert (folder / "torchship.lock").read_bytes() == committed
    # and again, with the fresh lock there and an empty store
    demo.build(folder, Store.open(machine.root / "another"), SILENT)


def test_a_demo_that_moves_on_twice_gives_up(demo, machine, aging, monkeypatch):
    """Where even a fresh lock's packages cannot be had, the demo says so and stops."""
    folder = demo.EXAMPLES / "mnist"
    assert machine.torchship("lock", folder).status == 0
    aging.files["bash"].unlink()
    with pytest.raises(MovedOn):
        demo.build(folder, Store.open(), SILENT)


@pytest.mark.skipif(on_host("3.11.2") is None, reason="an empty base cannot compile for itself")
def test_the_demo_draws_digits_where_mnist_cannot_be_had(demo, machine, capfd):
    """It says that no source answers, trains on drawn digits, and never calls them MNIST."""
    folder = demo.EXAMPLES / "mnist"
    settings = f'[tool.torchship]\n{PLAIN}name = "mnist"\n{UNAVAILABLE}'
    (folder / "pyproject.toml").write_text(settings)
    with pytest.raises(DataUnavailable):
        demo.build(folder, Store.open(), SILENT)
    demo.main()
    said = capfd.readouterr().err
    assert "not MNIST" in said
    assert "synthetic-digits:demo" in said
    assert "python main.py --epochs 1 --data digits" in said
    assert [named.reference.familiar for named in machine.store.images()] == [
        "synthetic-digits:demo"
    ]


@pytest.fixture
def variants(machine) -> Path:
    """Give a project with two builds of torch, which share a wheel."""
    machine.wheel("six")
    machine.wheel("torch", "2.0+cpu", requires=["six"])
    machine.wheel("torch", "2.0", requires=["six", "nvidia-cuda-runtime==13.0.96"])
    machine.wheel("nvidia-cuda-runtime", "13.0.96")
    settings = f'{PLAIN}torch = ["cpu", "cu130"]\n'
    return machine.project(settings=settings, requirements__txt="torch==2.0\n")


def test_one_name_holds_every_variant(machine, variants):
    """An index of two images for one platform, which differ in torch and what it brings alone."""
    machine.build(variants)
    shown = machine.torchship("inspect", "project", "--json").out
    cpu, cuda = json.loads(shown)
    assert (cpu["variant"], cuda["variant"]) == ("cpu", "cu130")
    assert (cpu["platform"], cuda["platform"]) == ("linux/amd64",) * 2
    assert cuda["labels"]["dev.torchship.cuda"] == "13.0"
    one, two = ({layer["digest"] for layer in each["layers"]} for each in (cpu, cuda))
    titles = {layer["digest"]: layer["title"] for each in (cpu, cuda) for layer in each["layers"]}
    assert sorted(titles[digest] for digest in one ^ two) == [
        "nvidia-cuda-runtime 13.0.96",
        "torch 2.0",
        "torch 2.0+cpu",
    ]
    assert "linux/amd64 cpu, linux/amd64 cu130" in machine.torchship("images").out
    assert machine.torchship("lock", "--check", variants).status == 0


def test_one_variant_can_be_built_alone(machine, variants):
    """It is the very image that the index holds; one that the project lacks is named."""
    machine.build(variants)
    both = json.loads(machine.torchship("inspect", "project", "--json").out)
    alone = machine.build(variants, "--variant", "cu130", "-t", "alone")
    assert alone == both[1]["manifest"]
    machine.torchship("build", variants, "--variant", "cu118").fails(
        "the project has no variant cu118: tool.torchship.torch is cpu, cu130", status=2
    )
    plain = machine.project("plain", settings=f'{PLAIN}torch = "cpu"\n')
    assert machine.build(plain, "--variant", "cpu") == machine.build(plain)
