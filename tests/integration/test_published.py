"""The image of a job, as a real registry has it, and as the store does."""

from __future__ import annotations

import pytest
from tests.integration import images

from torchship.digest import Digest
from torchship.errors import UsageError
from torchship.launch.published import find
from torchship.oci.push import push
from torchship.oci.reference import Reference
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT

pytestmark = pytest.mark.engine

ARM64 = Platform("linux", "arm64")


@pytest.fixture
def store(tmp_path):
    """Give a store of the test's own."""
    return Store.open(tmp_path / "store")


@pytest.fixture
def name(shared_registry, request):
    """Give a reference of the test's own."""
    repository = Digest.of(request.node.name.encode()).short
    return Reference.parse(f"{shared_registry.host}/{repository}:v1")


def found(name, store, platform=None):
    """Find an image without variants."""
    return find(name, store, platform=platform, choice=lambda names: names[0])


def test_a_name_that_is_another_image_here_is_not_launched(store, name):
    """What was built and not pushed would not be what runs; nor does its name move."""
    pushed = images.image(store, [("a", 1000)])
    push(store, pushed, name, progress=SILENT)
    built = images.image(store, [("b", 1000)])
    store.tag(name, built)
    with pytest.raises(UsageError, match="and another in its registry"):
        found(name, store)
    assert store.find(str(name)).digest == built.digest
    store.tag(name, pushed)
    assert found(name, store).top.digest == pushed.digest


def test_the_only_platform_is_the_nodes(store, name):
    """Whatever machine the job is submitted from."""
    made = images.image(store, [("a", 1000)], architecture="arm64")
    push(store, made, name, progress=SILENT)
    assert found(name, store).image.platform == ARM64
    listed = images.index(store, {"arm64": made})
    other = name.with_tag("v2")
    push(store, listed, other, progress=SILENT)
    assert found(other, store).image.platform == ARM64
