"""Images with CUDA, from a registry to a machine that cannot run them."""

import os
import subprocess
import sys

import pytest
from tests.integration import images

from torchship.engines.nvidia import Machine, check_driver
from torchship.errors import EngineError, ImageNotFound
from torchship.oci import cuda
from torchship.oci.pull import pull
from torchship.oci.push import push
from torchship.oci.reference import Reference
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT

pytestmark = pytest.mark.engine

LAYER = 300_000
OLD = Machine(driver="535.104.05")


@pytest.fixture
def published(shared_registry, tmp_path):
    """Push an image that has CUDA 13.0; return its name."""
    store = Store.open(tmp_path / "theirs")
    name = Reference.parse(f"{shared_registry.host}/test/cuda-{os.getpid()}:v1")
    architecture = Platform.host().architecture
    environment = ["CUDA_VERSION=13.0.2"]
    made = images.image(store, [("a", LAYER)], architecture=architecture, environment=environment)
    push(store, made, name, progress=SILENT)
    return name


def size(store: Store) -> int:
    """Return the bytes of all that a store holds."""
    return sum(path.stat().st_size for path in store.home.rglob("*") if path.is_file())


def test_a_driver_that_is_too_old_is_told_before_a_layer_is_pulled(published, tmp_path):
    """The store has documents of a few kilobytes then, and no image of that name."""
    store = Store.open(tmp_path / "ours")
    with pytest.raises(EngineError, match=r"CUDA 13\.0, which needs NVIDIA driver 580"):
        pull(
            published,
            store,
            platform=Platform.host(),
            approve=lambda image: check_driver(cuda.of_image(image), OLD),
            progress=SILENT,
        )
    assert size(store) < LAYER / 2
    with pytest.raises(ImageNotFound):
        store.find(str(published))


def test_an_image_that_is_approved_is_pulled_whole(published, tmp_path):
    """And shown once, with all that its config says."""
    shown = []
    store = Store.open(tmp_path / "ours")
    pulled = pull(published, store, platform=Platform.host(), approve=shown.append, progress=SILENT)
    assert [image.descriptor for image in shown] == [pulled.descriptor]
    assert size(store) > LAYER
    assert pulled.received == sum(layer.size for layer in shown[0].layers) + shown[0].config.size


def test_run_asks_for_gpus_before_it_pulls(published, tmp_path):
    """More than any machine has."""
    home = tmp_path / "ours"
    (tmp_path / "cdi").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "torchship", "run", str(published), "--engine=native", "--gpus=128"],
        env={
            **os.environ,
            "TORCHSHIP_HOME": str(home),
            "TORCHSHIP_CDI_DIRS": str(tmp_path / "cdi"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 125, done.stderr
    assert "GPU" in done.stderr
    assert size(Store.open(home)) < LAYER / 2
