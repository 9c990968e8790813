"""A platform of an index that the store has not got, asked for after another one was pulled."""

import pytest
from tests.integration import images

from torchship import pipeline
from torchship.errors import BlobMissing, ImageNotFound
from torchship.oci.load import load
from torchship.oci.pull import pull
from torchship.oci.push import push
from torchship.oci.reference import Reference
from torchship.oci.save import save
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT

pytestmark = pytest.mark.engine

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


@pytest.fixture
def half(tmp_path, shared_registry):
    """Publish an index of two platforms; give a store that has pulled one, and both images."""
    store = Store.open(tmp_path / "publisher")
    here = images.image(store, [("x", 1000)])
    there = images.image(store, [("y", 2000)], architecture="arm64")
    top = images.index(store, {"amd64": here, "arm64": there})
    name = Reference.parse(f"{shared_registry.host}/test/platforms:v1")
    push(store, top, name, progress=SILENT)
    pulled = Store.open(tmp_path / "half")
    pull(name, pulled, platform=AMD64, progress=SILENT)
    return pulled, top, there


def test_another_platform_is_pulled_when_it_is_run(half):
    """`run --platform` brings the other platform's image from where the index came from."""
    store, top, there = half
    assert not store.has(there.digest)
    image = pipeline.ready(store, top, ARM64, progress=SILENT)
    assert image.descriptor.digest == there.digest
    assert all(store.has(layer.digest) for layer in image.layers)


def test_a_platform_that_the_index_has_not_got_is_told(tmp_path):
    """What the index holds is named."""
    store = Store.open(tmp_path / "store")
    top = images.index(store, {"amd64": images.image(store, [("x", 1000)])})
    with pytest.raises(ImageNotFound, match="linux/arm64") as caught:
        pipeline.ready(store, top, ARM64, progress=SILENT)
    assert "linux/amd64" in str(caught.value) + (caught.value.hint or "")


def test_a_platform_that_is_nowhere_is_told(half, tmp_path):
    """An index that came from a file says what to do, for nobody knows where the rest is."""
    store, top, _ = half
    save(store, top, tmp_path / "half.tar", names=[Reference.parse("mnist")])
    elsewhere = Store.open(tmp_path / "elsewhere")
    load(elsewhere, tmp_path / "half.tar")
    assert pipeline.ready(elsewhere, top, AMD64, progress=SILENT)
    with pytest.raises(BlobMissing, match=r"lacks the blob|holds no blob") as caught:
        pipeline.ready(elsewhere, top, ARM64, progress=SILENT)
    assert "pull" in (caught.value.hint or "")
