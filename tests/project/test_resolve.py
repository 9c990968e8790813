"""From a project to its lock, and how a lock that has aged is told."""

from __future__ import annotations

import shutil
import time

import pytest
import uv
from msgspec.structs import replace
from tests.wheels import make_wheel

from torchship.digest import Digest
from torchship.errors import DataUnavailable, ProjectError, ResolveError
from torchship.platform import Platform
from torchship.progress import SILENT
from torchship.project.lock import load, save
from torchship.project.resolve import BaseImage, inputs, resolve, stale

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
BASE = '[tool.torchship]\nbase = "registry.invalid/python:3.11"\n'
DATA = b"all the data there is"


@pytest.fixture
def shelf(machine, monkeypatch, tmp_path):
    """Give a folder of wheels that is all that uv looks at."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    make_wheel(tmp_path / "shelf", "leaf", "1.0")
    make_wheel(tmp_path / "shelf", "other", "1.0")
    return tmp_path / "shelf"


class Registry:
    """Answers what a base image is, and remembers who asked."""

    def __init__(self, python="3.11.9"):
        self.asked = []
        self.python = python

    def __call__(self, reference, platform):
        """Answer as a registry would."""
        self.asked.append((reference, platform))
        return BaseImage(
            digest=Digest.of(f"{reference}{platform}".encode()),
            python=self.python,
            interpreter="/usr/bin/python3.11",
        )


def locked(project, tmp_path, registry=None, **options):
    """Resolve a project."""
    return resolve(
        project,
        progress=SILENT,
        state=tmp_path / "state",
        resolve_image=registry or Registry(),
        **options,
    )


def test_a_lock_pins_base_wheels_and_data(shelf, project, tmp_path, monkeypatch):
    """Every part is there for every platform, and comes back from the file."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "some-name").write_bytes(DATA)
    monkeypatch.setenv("TORCHSHIP_MIRRORS", str(mirror))
    data = f'[[tool.torchship.data]]\npath = "x/y.gz"\nsha256 = "{Digest.of(DATA).hex}"\n'
    one = project(BASE + data, requirements__txt="leaf\n")
    found = locked(one, tmp_path, platforms=(ARM64, AMD64))
    assert [entry.platform for entry in found.platforms] == [AMD64, ARM64]
    for entry in found.platforms:
        assert entry.python == "3.11.9"
        assert entry.base.interpreter == "/usr/bin/python3.11"
        assert [pin.name for pin in entry.wheels] == ["leaf"]
        assert entry.base.reference == "registry.invalid/python:3.11"
    assert found.platforms[0].base.digest != found.platforms[1].base.digest
    assert [(pin.path, pin.filename, pin.size) for pin in found.data] == [
        ("/workspace/x/y.gz", "y.gz", len(DATA))
    ]
    save(found, tmp_path / "torchship.lock")
    assert load(tmp_path / "torchship.lock") == found
    assert found.inputs == inputs(one)


def test_nothing_new_means_the_same_lock(shelf, project, tmp_path):
    """Locking again asks nobody and changes nothing, new releases or not."""
    one = project(BASE, requirements__txt="leaf\n")
    first = locked(one, tmp_path)
    make_wheel(shelf, "leaf", "2.0")
    registry = Registry()
    assert locked(one, tmp_path, registry, previous=first) == first
    assert registry.asked == []


def test_upgrade_takes_the_newest(shelf, project, tmp_path):
    """With ``upgrade`` pins move on."""
    one = project(BASE, requirements__txt="leaf\n")
    first = locked(one, tmp_path)
    make_wheel(shelf, "leaf", "2.0")
    second = locked(one, tmp_path, previous=first, upgrade=True)
    assert [pin.version for pin in second.platforms[0].wheels] == ["2.0"]


def test_a_new_requirement_moves_no_other_pin(shelf, project, tmp_path):
    """What was pinned stays, and the base is not asked for again."""
    first = locked(project(BASE, requirements__txt="leaf\n"), tmp_path)
    make_wheel(shelf, "leaf", "2.0")
    registry = Registry()
    two = project(BASE, requirements__txt="leaf\nother\n")
    second = locked(two, tmp_path, registry, previous=first)
    assert [(pin.name, pin.version) for pin in second.platforms[0].wheels] == [
        ("leaf", "1.0"),
        ("other", "1.0"),
    ]
    assert second.created == first.created
    assert registry.asked == []


def test_a_new_platform_leaves_the_wheels_of_the_old(shelf, project, tmp_path):
    """Adding a platform resolves that one's wheels alone."""
    one = project(BASE, requirements__txt="leaf\n")
    first = locked(one, tmp_path)
    make_wheel(shelf, "leaf", "2.0")
    second = locked(one, tmp_path, previous=first, platforms=(AMD64, ARM64))
    assert [entry.wheels[0].version for entry in second.platforms] == ["1.0", "2.0"]


VARIANTS = BASE + 'torch = ["cpu", "cu130"]\n'


@pytest.fixture
def builds(shelf):
    """Add two builds of one release of torch to the folder."""
    make_wheel(shelf, "torch", "2.0+cpu", requires=["leaf"])
    make_wheel(shelf, "torch", "2.0", requires=["leaf", "nvidia-cuda-runtime==13.0.96"])
    make_wheel(shelf, "nvidia-cuda-runtime", "13.0.96")
    return shelf


def test_each_build_of_torch_is_a_variant(builds, project, tmp_path):
    """Every platform has each, in the order of the settings, on one base; the rest is the same."""
    one = project(VARIANTS, requirements__txt="torch==2.0\n")
    registry = Registry()
    found = locked(one, tmp_path, registry, platforms=(ARM64, AMD64))
    assert [(entry.platform, entry.variant) for entry in found.platforms] == [
        (AMD64, "cpu"),
        (AMD64, "cu130"),
        (ARM64, "cpu"),
        (ARM64, "cu130"),
    ]
    assert len(registry.asked) == 2
    cpu, cuda = found.of(AMD64)
    assert cpu.base == cuda.base
    assert [f"{pin.name} {pin.version}" for pin in cpu.wheels] == ["leaf 1.0", "torch 2.0+cpu"]
    assert [f"{pin.name} {pin.version}" for pin in cuda.wheels] == [
        "leaf 1.0",
        "nvidia-cuda-runtime 13.0.96",
        "torch 2.0",
    ]
    assert locked(one, tmp_path, Registry(), previous=found, platforms=(ARM64, AMD64)) == found
    assert stale(one, found, [AMD64, ARM64]) == ()


def test_a_new_variant_leaves_the_wheels_of_the_old(builds, project, tmp_path):
    """Another build is resolved alone, and takes the versions that the first one has."""
    first = locked(project(BASE + 'torch = "cpu"\n', requirements__txt="torch==2.0\n"), tmp_path)
    make_wheel(builds, "leaf", "2.0")
    two = project(VARIANTS, requirements__txt="torch==2.0\n")
    assert stale(two, first, [AMD64]) == ("torch cpu -> cpu cu130",)
    second = locked(two, tmp_path, previous=first)
    assert second.platform(AMD64, "cpu").wheels == first.platform(AMD64).wheels
    assert second.platform(AMD64, "cu130").wheels[0].version == "1.0"
    back = locked(replace(two, torch=("cu130",)), tmp_path, previous=second)
    assert [entry.variant for entry in back.platforms] == [""]
    assert back.platforms[0].wheels == second.platform(AMD64, "cu130").wheels


def test_variants_of_different_releases_are_told(builds, project, tmp_path):
    """One name for two releases of torch surprises: it is said, with what to write."""
    make_wheel(builds, "torch", "2.1", requires=["nvidia-cuda-runtime==13.0.96"])
    said = []

    class Heard(type(SILENT)):
        def say(self, line):
            said.append(line)

    one = project(VARIANTS, requirements__txt="torch\n")
    resolve(one, progress=Heard(), state=tmp_path / "state", resolve_image=Registry())
    assert "linux/amd64, cu130: Python 3.11.9, torch 2.1 (cu130), 2 wheels" in "\n".join(said)
    assert "different versions of torch, 2.0+cpu and 2.1: require torch==VERSION" in said[-1]


def test_staleness_is_told_in_words(shelf, project, tmp_path):
    """A lock that no longer fits says what changed, by name."""
    sha = Digest.of(DATA).hex
    one = project(BASE + 'packages = []\ntorch = "auto"\n', requirements__txt="leaf\n")
    lock = locked(one, tmp_path)
    assert stale(one, lock) == ()
    assert stale(one, lock, [AMD64, ARM64]) == ("linux/arm64 is not locked",)
    text = f'packages = ["git"]\ntorch = "cpu"\ndata = [{{ path = "/d", sha256 = "{sha}" }}]\n'
    two = project(BASE + text, requirements__txt="leaf>0\n")
    assert stale(two, lock) == (
        "data /d is new",
        "requirements.txt changed",
        "packages +git",
        "torch auto -> cpu",
    )
    plain = replace(lock, resolved_from={})
    assert stale(two, plain) == ("the project's inputs changed",)


def test_code_and_comments_make_no_lock_stale(shelf, project, tmp_path):
    """Only what resolution depends on counts."""
    one = project(BASE, requirements__txt="leaf\n")
    lock = locked(one, tmp_path)
    two = project(BASE + 'command = ["python", "-V"]', requirements__txt="leaf  # good\n")
    assert stale(two, lock) == ()


def test_a_base_of_another_python_is_refused(shelf, project, tmp_path):
    """Wheels for one Python are no use on another's."""
    one = project(BASE, requirements__txt="leaf\n")
    with pytest.raises(ResolveError, match=r"has Python 3\.12\.1, and the project wants 3\.11"):
        locked(one, tmp_path, Registry("3.12.1"))


def test_packages_need_a_debian_base(shelf, project, tmp_path):
    """Debian packages cannot be added to an image of somebody else's."""
    one = project(BASE + 'packages = ["git"]\n')
    with pytest.raises(ProjectError, match="packages cannot be added"):
        locked(one, tmp_path)


def test_data_that_nobody_has_is_told(shelf, project, tmp_path):
    """Without a mirror or an address the size of a data file cannot be pinned."""
    one = project(BASE + f'data = [{{ path = "/d", sha256 = "{"0" * 64}" }}]\n')
    with pytest.raises(DataUnavailable, match=r"/d cannot be had: it has no urls") as caught:
        locked(one, tmp_path)
    assert "TORCHSHIP_MIRRORS" in caught.value.hint


@pytest.mark.network
def test_a_debian_base_tells_the_full_version_of_python(project, tmp_path, monkeypatch):
    """The suite's packages are pinned by apt, and Python's version is read from them."""
    if shutil.which("apt-get") is None:
        pytest.skip("needs apt-get")
    found = locked(project(), tmp_path)
    entry = found.platform(AMD64)
    assert entry.python.startswith("3.11.")
    assert {"bash", "python3"} <= {pin.name for pin in entry.base.packages}
    again = locked(project(), tmp_path, previous=found)
    assert again == found


WANTED = '[project]\nname = "x"\nrequires-python = "{}"\n' + BASE


def test_a_release_of_python_that_the_project_does_not_want_is_refused(shelf, project, tmp_path):
    """The base tells its full version, and the range in pyproject.toml may exclude that."""
    wanted = project(WANTED.format(">=3.11.10"))
    with pytest.raises(ResolveError, match=r"has Python 3\.11\.9.* wants >=3\.11\.10") as caught:
        locked(wanted, tmp_path)
    assert "requires-python" in caught.value.hint
    assert locked(project(WANTED.format(">=3.11.9")), tmp_path).platforms[0].python == "3.11.9"


def test_a_lock_whose_python_is_no_more_wanted_is_stale(shelf, project, tmp_path):
    """Its base is asked for again: a published one may have another release by now."""
    first = locked(project(WANTED.format(">=3.11")), tmp_path)
    changed = project(WANTED.format(">=3.11.10"))
    assert stale(changed, first) == ("requires-python >=3.11.10 excludes Python 3.11.9",)
    registry = Registry("3.11.12")
    second = locked(changed, tmp_path, registry, previous=first)
    assert second.platforms[0].python == "3.11.12"
    assert stale(changed, second) == ()


def test_where_nothing_resolves_debian_packages_the_default_base_is_dockers(
    shelf, project, tmp_path, monkeypatch
):
    """A Mac or Fedora takes Docker's image of Python, and a base that was asked for stays."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    registry = Registry()
    lock = locked(project(), tmp_path, registry)
    assert [entry.base.reference for entry in lock.platforms] == ["python:3.11-slim"]
    assert [reference for reference, _ in registry.asked] == ["python:3.11-slim"]
    with pytest.raises(ResolveError, match="no apt-get"):
        locked(replace(project(), base="debian:trixie"), tmp_path, registry)


def test_uv_is_looked_for_by_one_thread_at_a_time(shelf, project, tmp_path, monkeypatch):
    """Two platforms are resolved side by side, and Python's sysconfig cannot be entered twice."""
    find, inside, most = uv.find_uv_bin, [], []

    def watched():
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.2)
        inside.pop()
        return find()

    monkeypatch.setattr(uv, "find_uv_bin", watched)
    locked(project(BASE, requirements__txt="leaf\n"), tmp_path, platforms=(AMD64, ARM64))
    assert most == [1, 1]


def test_uv_keeps_what_it_learns_where_it_is_told(shelf, project, tmp_path, monkeypatch):
    """What uv unpacks is in the folder given, unless the user has named another."""
    found = project(BASE, requirements__txt="leaf\n")
    locked(found, tmp_path, cache=tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
    monkeypatch.delenv("UV_CACHE_DIR")
    locked(found, tmp_path, cache=tmp_path / "ours")
    assert (tmp_path / "ours" / "CACHEDIR.TAG").is_file()
    assert not (tmp_path / "home" / ".cache").exists()
