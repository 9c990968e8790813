"""A Docker Engine and registries for the tests here: one for all, unless a test damages it."""

from pathlib import Path

import pytest
from tests.integration import engines
from tests.integration import proxy as proxies
from tests.integration import registry as registries

from torchship.oci.registry.patience import Patience

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "mnist"


_DEARER = {"test_mnist_verdicts.py"}
"""Files whose own fixtures take longer than to start another Docker Engine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker have all that needs a Docker Engine, which is dear; else keep files whole.

    This is what `--dist loadgroup` goes by.
    """
    for item in items:
        if item.path.parent == HERE:
            engine = "dockerd" in getattr(item, "fixturenames", ())
            group = "docker" if engine and item.path.name not in _DEARER else item.path.name
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True)
def docker_config(tmp_path, monkeypatch):
    """Keep the user's own accounts out of the tests."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker" / "config.json"


@pytest.fixture(scope="session")
def shared_registry(tmp_path_factory):
    """Give an anonymous registry that all tests share: each uses repositories of its own."""
    with registries.running(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def dockerd():
    """Give a Docker Engine of the tests' own, which all tests share."""
    with engines.running_docker() as running:
        yield running


@pytest.fixture(scope="session")
def base_image(dockerd) -> str:
    """Give the tests' Docker Engine a base image with Python, made of Debian packages."""
    dockerd.docker("import", engines.base_archive(), engines.BASE_IMAGE)
    return engines.BASE_IMAGE


@pytest.fixture(scope="session")
def torch_index(tmp_path_factory):
    """Serve what the example requires, torch and all, on loopback."""
    wanted = (EXAMPLE / "requirements.txt").read_text().split()
    with engines.wheel_index(tmp_path_factory.mktemp("index"), *wanted) as address:
        yield address


@pytest.fixture
def proxy(shared_registry):
    """Give a fault-injecting proxy before the shared registry."""
    with proxies.running(shared_registry.host) as running:
        yield running


@pytest.fixture
def patience():
    """Give short waits, so that faults cost milliseconds."""
    return Patience(attempts=4, first=0.01, longest=2.0, silence=2.0)
