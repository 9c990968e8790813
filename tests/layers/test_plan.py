"""The plan: which pins share a layer, in which order, within the budget."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from torchship.digest import Digest
from torchship.errors import PlanError, ProjectError
from torchship.layers.layer import key
from torchship.layers.layout import LayoutRecipe
from torchship.layers.plan import BUCKETS, BUDGET, LARGE, bucket, plan, share
from torchship.platform import Platform
from torchship.project.lock import BasePin, DataPin, PackagePin, PlatformLock, WheelPin
from torchship.project.project import Project


def _wheel(name: str, size: int = 1000, version: str = "1.0") -> WheelPin:
    return WheelPin(
        name=name,
        version=version,
        filename=f"{name}-{version}-py3-none-any.whl",
        size=size,
        digest=Digest.of(f"{name} {version}".encode()),
    )


def _lock(*wheels: WheelPin, base: BasePin | None = None) -> PlatformLock:
    package = PackagePin(
        name="bash",
        version="5",
        architecture="amd64",
        path="pool/b/bash.deb",
        size=1,
        digest=Digest.of(b"bash"),
    )
    return PlatformLock(
        platform=Platform("linux", "amd64"),
        python="3.11.2",
        base=base or BasePin(reference="debian:bookworm", packages=(package,)),
        wheels=wheels,
    )


def _data(name: str) -> DataPin:
    return DataPin(path=f"/data/{name}", filename=name, size=1, digest=Digest.of(name.encode()))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Make a project of one file, all of whose wheels are compiled."""
    (tmp_path / "main.py").write_text("print('hello')\n")
    return Project(root=tmp_path, name="hello", bytecode="all")


def _kinds(recipes) -> list[str]:
    return [type(recipe).__name__ for recipe in recipes]


def test_layers_stand_in_the_order_of_change(project):
    """The base is lowest, then wheels with their bytecode, data, and the source on top."""
    pins = _lock(_wheel("torch", 200 * LARGE), _wheel("numpy", 20 * LARGE), _wheel("six"))
    recipes = plan(project, pins, [_data("b"), _data("a")])
    assert _kinds(recipes) == [
        "DebianRecipe",
        "DebianBytecodeRecipe",
        "LayoutRecipe",
        *["WheelsRecipe", "BytecodeRecipe"] * 3,
        "DataRecipe",
        "DataRecipe",
        "SourceRecipe",
    ]
    assert [recipe.title for recipe in recipes if type(recipe).__name__ == "WheelsRecipe"] == [
        "torch 1.0",
        "numpy 1.0",
        "six 1.0",
    ]
    assert [recipe.pin.path for recipe in recipes[-3:-1]] == ["/data/a", "/data/b"]


def test_data_is_the_users_where_nothing_is_baked_into_it(project):
    """Programs may download to ../data, as torchvision's do; baked data stay as they are."""

    def further(*data: DataPin) -> tuple[str, ...]:
        (found,) = (r for r in plan(project, _lock(), data) if isinstance(r, LayoutRecipe))
        return found.further

    assert further() == ("/data",)
    assert further(replace(_data("a"), path="/workspace/a")) == ("/data",)
    assert further(_data("a")) == further(replace(_data("a"), path="/data")) == ()


PINNED = DataPin(
    path="/workspace/data/train.gz", filename="train.gz", size=4, digest=Digest.of(b"data")
)


def _sources(project) -> list[str]:
    """Return which files the source layer has."""
    recipes = plan(project, _lock(), [PINNED])
    assert recipes[-2].pin == PINNED
    return [file.path for file in recipes[-1].files]


def test_the_authors_copy_of_pinned_data_stays_out(project):
    """It would be the same bytes once more, in the layer that every edit makes again."""
    (project.root / "data").mkdir()
    (project.root / "data" / "train.gz").write_bytes(b"data")
    (project.root / "data" / "notes").write_bytes(b"data")
    assert _sources(project) == ["data/notes", "main.py"]
    (project.root / "data" / "notes").unlink()
    assert _sources(project) == ["main.py"]


@pytest.mark.parametrize("kind", ["other bytes", "link", "link above", "file above", "folder"])
def test_nothing_of_the_project_hides_pinned_data(project, kind):
    """The image's label states the pinned digest; what is seen has to be that."""
    train = project.root / "data" / "train.gz"
    if "above" not in kind:
        train.parent.mkdir()
    if kind == "other bytes":
        train.write_bytes(b"more")
    elif kind == "link":
        train.symlink_to("../main.py")
    elif kind == "link above":
        (project.root / "elsewhere").mkdir()
        (project.root / "data").symlink_to("elsewhere")
    elif kind == "file above":
        (project.root / "data").write_bytes(b"data")
    else:
        train.mkdir()
        (train / "part").write_bytes(b"data")
    with pytest.raises(ProjectError, match=r"data.* and the data file /workspace/data/train\.gz"):
        _sources(project)
    assert _sources(replace(project, exclude=("data",)))


def test_folders_share_what_is_pinned_in_them(project):
    """An empty folder of the project may be the one that pinned data is in."""
    (project.root / "data").mkdir()
    assert _sources(project) == ["data", "main.py"]
    train = project.root / "data" / "train.gz"
    train.mkdir()
    with pytest.raises(ProjectError, match=r"data/train\.gz and the data file"):
        _sources(project)


def test_no_bytecode_when_none_is_asked_for(project):
    """With ``bytecode = "none"`` there is no layer of it, of the base neither."""
    recipes = plan(replace(project, bytecode="none"), _lock(_wheel("six")), [])
    assert _kinds(recipes) == ["DebianRecipe", "LayoutRecipe", "WheelsRecipe", "SourceRecipe"]


def test_only_what_the_project_requires_is_compiled(project):
    """The bytecode of wheels that others need is left out, unless a training loads it."""
    (project.root / "requirements.txt").write_text("Torch\n-r more.txt\n-c limits.txt\n")
    (project.root / "more.txt").write_text("typing.extensions>=4\n")
    (project.root / "limits.txt").write_text("sympy<2\n")
    wheels = (
        *(_wheel("torch", 200 * LARGE), _wheel("sympy", 2 * LARGE)),
        *(_wheel("networkx", 2 * LARGE), _wheel("typing-extensions")),
    )
    imported = replace(project, bytecode="imported", requirements="requirements.txt")
    recipes = plan(imported, _lock(*wheels), [])
    compiled = [recipe for recipe in recipes if type(recipe).__name__ == "BytecodeRecipe"]
    assert [pin.name for recipe in compiled for pin in recipe.wheels] == [
        "torch",
        "sympy",
        "typing-extensions",
    ]


def test_a_published_base_brings_its_own_layers(project):
    """On a published image the plan begins with the layout, and counts the layers below."""
    base = BasePin(reference="python:3.11-slim", digest=Digest.of(b"manifest"))
    recipes = plan(project, _lock(_wheel("six"), base=base), [], base_layers=5)
    assert _kinds(recipes) == ["LayoutRecipe", "WheelsRecipe", "BytecodeRecipe", "SourceRecipe"]


def test_the_order_of_the_lock_changes_nothing(project):
    """The same pins in another order give the same recipes."""
    wheels = [_wheel(f"w{number}", number * LARGE // 4) for number in range(40)]
    first = plan(project, _lock(*wheels), [])
    second = plan(project, _lock(*reversed(wheels)), [])
    assert [key(recipe) for recipe in first] == [key(recipe) for recipe in second]


def test_the_bump_of_a_small_wheel_changes_one_bucket(project):
    """A new version of one small wheel gives one new wheel layer and one of its bytecode."""
    wheels = [_wheel("torch", 200 * LARGE)] + [_wheel(f"w{number}") for number in range(60)]
    bumped = [*wheels[:30], _wheel("w29", version="2.0"), *wheels[31:]]
    before = [key(recipe) for recipe in plan(project, _lock(*wheels), [])]
    after = [key(recipe) for recipe in plan(project, _lock(*bumped), [])]
    assert len(before) == len(after)
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 2


@pytest.mark.parametrize("size", [1000, 2 * LARGE])
def test_300_wheels_fit(project, size):
    """A project of 300 wheels, small or large, stays within the budget and loses none."""
    wheels = [_wheel(f"w{number}", size + number) for number in range(300)]
    recipes = plan(project, _lock(*wheels), [_data(str(number)) for number in range(4)])
    assert len(recipes) <= BUDGET
    held = [pin for recipe in recipes for pin in getattr(recipe, "wheels", ())]
    assert sorted(pin.name for pin in held) == sorted(pin.name for pin in wheels * 2)


def test_the_largest_keep_their_own_layers():
    """Where the budget is short, it is the largest wheels that stand alone."""
    wheels = [_wheel(f"w{number}", LARGE + number) for number in range(20)]
    groups = share(wheels, room=BUCKETS + 4)
    assert [pins[0].name for pins in groups[:3]] == ["w19", "w18", "w17"]
    assert len(groups) <= BUCKETS + 4


def test_variants_share_the_buckets_of_small_wheels(project):
    """What CUDA brings besides torch stands apart, large or small: the rest is the same layers."""
    rest = [_wheel(f"w{number}") for number in range(40)]
    cpu = [_wheel("torch", 200 * LARGE, "2.0+cpu"), *rest]
    cuda = [_wheel("torch", 500 * LARGE, "2.0"), _wheel("nvidia-cublas", 400 * LARGE), *rest]
    cuda += [_wheel(name) for name in ("nvidia-nvtx", "cuda-toolkit", "cuda-pathfinder")]
    one, two = ({key(r) for r in plan(project, _lock(*each), [])} for each in (cpu, cuda))
    # two of each build of torch, and of CUDA its one large wheel and the bucket of small ones
    assert (len(one - two), len(two - one)) == (2, 2 + 2 * 2)


def test_a_base_that_leaves_no_room_is_an_error(project):
    """A base image of too many layers is told, with what to do."""
    base = BasePin(reference="much:layered", digest=Digest.of(b"manifest"))
    wheels = [_wheel(f"w{number}") for number in range(20)]
    with pytest.raises(PlanError, match="room for 110 layers") as caught:
        plan(project, _lock(*wheels, base=base), [], base_layers=100)
    assert "base image" in caught.value.hint


def test_buckets_do_not_depend_on_how_a_name_is_written():
    """One distribution has one bucket, and the bucket of a name is the same for ever."""
    assert bucket("Ruamel.YAML") == bucket("ruamel-yaml")
    assert [bucket(name) for name in ("six", "numpy", "jinja2")] == [6, 2, 0]
    assert [bucket(name) for name in ("NVIDIA.nvtx", "cuda-toolkit", "triton")] == [8, 8, 8]
