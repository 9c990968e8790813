"""What works with one registry works with another one, which shares no code with it."""

from __future__ import annotations

import pytest
from tests.integration import django_registry, images

from torchship.oci import artifact
from torchship.oci.attached import pull_referrers
from torchship.oci.copy import copy
from torchship.oci.image import read_image
from torchship.oci.pull import pull
from torchship.oci.push import push
from torchship.oci.reference import Reference
from torchship.oci.registry.client import Registry
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT

pytestmark = [pytest.mark.engine, pytest.mark.network]

AMD64 = Platform("linux", "amd64")
BIG = 3_000_000


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """Give the registry's host."""
    with django_registry.running(tmp_path_factory.mktemp("django")) as running:
        yield running


@pytest.fixture
def store(tmp_path):
    """Give the store that images start in."""
    return Store.open(tmp_path / "store")


@pytest.fixture
def empty(tmp_path):
    """Give the store that images arrive in."""
    return Store.open(tmp_path / "empty")


def test_an_image_goes_there_and_comes_back(host, store, empty):
    """Push, tags, pull and a second push that sends nothing."""
    made = images.image(store, [("a", BIG), ("b", 1000)])
    name = Reference.parse(f"{host}/me/x:v1")
    assert push(store, made, name, progress=SILENT).sent > BIG
    assert push(store, made, name.with_tag("v2"), progress=SILENT).sent == 0
    assert Registry(host).tags("me/x") == ("v1", "v2")
    assert pull(name, empty, platform=None, progress=SILENT).descriptor.digest == made.digest
    for layer in read_image(empty, made, AMD64).layers:
        assert b"".join(empty.read_verified(layer.descriptor))


def test_a_pull_goes_on_there_too(host, store, empty):
    """It gives no ranges: what is there already is passed over."""
    made = images.image(store, [("c", BIG)])
    name = Reference.parse(f"{host}/me/y:v1")
    push(store, made, name, progress=SILENT)
    layer = read_image(store, made, AMD64).layers[0]
    with empty.resume(layer.digest, lambda: None) as writer:
        writer.write(b"".join(store.read_verified(layer.descriptor))[: BIG // 2])
    assert pull(name, empty, platform=None, progress=SILENT).received < BIG


def test_images_and_records_go_between_the_two(host, store, empty, shared_registry):
    """A copy to the other kind of registry and back, with what refers to it."""
    made = images.image(store, [("d", BIG)])
    content = artifact.Content(b"1", "a/b", "r")
    record = artifact.attach(store, made, "application/vnd.example.record", (content,))
    here = Reference.parse(f"{host}/me/z:v1")
    there = Reference.parse(f"{shared_registry.host}/from-django/z:v1")
    assert push(store, made, here, progress=SILENT).referrers == 1
    assert copy(here, there, platform=None, progress=SILENT).referrers == 1
    back = Reference.parse(f"{host}/me/back:v1")
    assert copy(there, back, platform=None, progress=SILENT).referrers == 1
    pull(back, empty, platform=None, progress=SILENT)
    assert len(pull_referrers(back, empty, made, progress=SILENT)) == 1
    assert artifact.referrers(empty, made.digest) == (record,)
