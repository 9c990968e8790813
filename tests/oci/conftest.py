"""A store, and real layers and images in it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from torchship.digest import Descriptor, Digest
from torchship.layers.data import DataRecipe
from torchship.layers.layer import Layer, Materials
from torchship.oci.assemble import assemble
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.project.lock import DataPin
from torchship.project.project import Project

AMD64 = Platform("linux", "amd64")


class Said:
    """A progress that remembers what was said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        """Remember a line."""
        self.lines.append(line)

    def task(self, label, total=None):
        """Begin nothing."""
        return self

    def advance(self, amount):
        """Do nothing."""

    def finish(self):
        """Do nothing."""


@pytest.fixture
def said() -> Said:
    """Return what the store tells its user."""
    return Said()


@pytest.fixture
def store(tmp_path: Path, said: Said) -> Store:
    """Return an empty store."""
    return Store.open(tmp_path / "home", progress=said)


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., tuple[DataRecipe, Materials]]:
    """Make a recipe of one data file, and the materials that it needs."""

    def make(data: bytes = b"some data\n", path: str = "/data/file"):
        digest = Digest.of(data)
        source = tmp_path / digest.hex
        source.write_bytes(data)
        pin = DataPin(path=path, filename="file", size=len(data), digest=digest)
        return DataRecipe(pin=pin), Materials(files={digest: source}, scratch=tmp_path)

    return make


@pytest.fixture
def layer(store: Store, recipe) -> Callable[..., Layer]:
    """Derive a layer of one data file."""
    return lambda *arguments: store.derive(*recipe(*arguments))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project with settings of its own."""
    return Project(root=tmp_path, name="mnist", environment={"LANG": "C.UTF-8"})


@pytest.fixture
def image(store: Store, layer, project: Project) -> Callable[..., Descriptor]:
    """Assemble an image of two layers, the upper one with the given data."""

    def make(data: bytes = b"some data\n", platform: Platform = AMD64) -> Descriptor:
        layers = [layer(b"the base\n", "/data/base"), layer(data)]
        return assemble(store, project=project, platform=platform, layers=layers, environment={})

    return make
