import json

import pytest

from torchship.errors import BlobMissing
from torchship.oci.assemble import index
from torchship.oci.describe import describe
from torchship.platform import Platform


def test_each_layer_is_described_with_its_size_share_content_and_origin(store, image):
    """The shares of a platform add up to the whole."""
    descriptor = index(store, [image(b"1"), image(b"2", Platform("linux", "arm64"))])
    amd64, arm64 = describe(store, descriptor)
    assert (str(amd64.image.platform), str(arm64.image.platform)) == ("linux/amd64", "linux/arm64")
    assert sum(described.share for described in amd64.layers) == 1
    assert [described.title for described in amd64.layers] == ["data /data/base", "data /data/file"]
    origin = amd64.layers[0].origin["dev.torchship.layer.origin"]
    assert origin.startswith("data:file@sha256:")
    assert list(amd64.layers[0].origin) == ["dev.torchship.layer.origin"]


def test_a_platform_that_was_not_pulled_is_left_out(store, image):
    """The index of a published image names more than was asked for."""
    amd64, arm64 = image(b"1"), image(b"2", Platform("linux", "arm64"))
    both = index(store, [amd64, arm64])
    store.blobs.remove(arm64.digest)
    assert [str(found.image.platform) for found in describe(store, both)] == ["linux/amd64"]
    with pytest.raises(BlobMissing):
        describe(store, arm64)


def test_the_description_is_plain_json(store, image):
    """What ``inspect --json`` prints can be read back, with all the facts in it."""
    (described,) = describe(store, image())
    document = json.loads(json.dumps(described.as_json()))
    assert document["command"] == ["python", "main.py"]
    assert document["layers"][0]["unpackedSize"] > 0
    assert document["size"] == sum(layer["size"] for layer in document["layers"])


def test_layers_that_others_built_are_described_by_their_history(store, image):
    """Steps that made no layer are passed over."""
    descriptor = image()
    manifest = json.loads(store.read(descriptor))
    for layer in manifest["layers"]:
        del layer["annotations"]
    with store.open_blob(type(descriptor.digest).parse(manifest["config"]["digest"])) as stream:
        config = json.load(stream)
    config["history"] = [
        {"created_by": "ADD rootfs"},
        {"created_by": "CMD x", "empty_layer": True},
        {"created_by": "RUN pip"},
    ]
    put = store.put(json.dumps(config).encode(), manifest["config"]["mediaType"])
    manifest["config"] |= {"digest": str(put.digest), "size": put.size}
    (described,) = describe(store, store.put(json.dumps(manifest).encode(), descriptor.media_type))
    assert [layer.title for layer in described.layers] == ["ADD rootfs", "RUN pip"]
