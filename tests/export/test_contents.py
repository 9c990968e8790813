"""What an image holds, as its layers show it from above."""

from __future__ import annotations

import hashlib

import pytest
from tests.export.conftest import layer

from torchship.errors import LayerError
from torchship.export.contents import contents

SITE = "opt/venv/lib/python3.11/site-packages"


def metadata(name, version="1"):
    """Return a minimal METADATA file."""
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\n".encode()


def names(store, image, data=()):
    """Return the distributions that an image holds, and their versions."""
    found = contents(image.layers, store.open_blob, data)
    return {each.distribution.name: each.distribution.version for each in found.distributions}


def test_distributions_are_found_in_their_layers(store, make):
    """Each with the place of its .dist-info and the layer that it came with."""
    below = layer({f"{SITE}/a-1.dist-info/METADATA": metadata("a")})
    above = layer({f"./{SITE}/b-2.dist-info/METADATA": metadata("b", "2")})
    image = make(below, above)
    a, b = contents(image.layers, store.open_blob, ()).distributions
    assert a.location == f"/{SITE}/a-1.dist-info"
    assert [a.layer, b.layer] == [each.digest for each in image.layers]
    assert (b.distribution.name, b.distribution.version) == ("b", "2")


@pytest.mark.parametrize(
    "above",
    [
        {f"{SITE}/.wh.a-1.dist-info": b""},
        {f"{SITE}/a-1.dist-info/.wh.METADATA": b""},
        {f"{SITE}/a-1.dist-info/.wh..wh..opq": b""},
        {"opt/.wh.venv": b""},
        {f"{SITE}/a-1.dist-info": b"a file in the folder's place"},
        {"opt": b""},
    ],
)
def test_what_an_upper_layer_removes_is_gone(store, make, above):
    """Whiteouts, opaque folders, and a file in a folder's place."""
    below = layer(
        {f"{SITE}/a-1.dist-info/METADATA": metadata("a"), "usr/x-1.dist-info/METADATA": b""}
    )
    assert names(store, make(below)) == {"a": "1"}
    assert names(store, make(below, layer(above))) == {}


def test_an_upper_layers_file_is_the_one_that_counts(store, make):
    """Also within a layer: the last entry of a name stays."""
    path = f"{SITE}/a-1.dist-info/METADATA"
    below, above = layer({path: metadata("a")}), layer({path: metadata("a", "1.1")})
    assert names(store, make(below, above)) == {"a": "1.1"}


def test_a_hard_link_into_a_cache_is_followed(store, make):
    """Installers link files from their cache, which is no place of installation itself."""
    cached = {"root/.cache/a-1.dist-info/METADATA": metadata("a")}
    linked = [(f"{SITE}/a-1.dist-info/METADATA", "root/.cache/a-1.dist-info/METADATA")]
    assert names(store, make(layer(cached))) == {}
    assert names(store, make(layer(cached, links=linked))) == {"a": "1"}


def test_long_descriptions_are_passed_over(store, make):
    """Of a METADATA file of many megabytes the headers are read, and what follows it is found."""
    long = metadata("a") + b"x" * (3 << 20)
    tar = layer({f"{SITE}/a-1.dist-info/METADATA": long,
                 f"{SITE}/b-1.dist-info/METADATA": metadata("b")})  # fmt: skip
    assert names(store, make(tar)) == {"a": "1", "b": "1"}


def test_debian_packages_and_the_release_are_read(store, make):
    """From dpkg's status, or the folder that images of distroless have in its place."""
    status = b"Package: x\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n"
    there = b"Package: y\nVersion: 2\nArchitecture: amd64\n"
    image = make(
        layer(
            {
                "var/lib/dpkg/status": status,
                "var/lib/dpkg/status.d/y": there,
                "usr/lib/os-release": b"ID=debian\nVERSION_ID=12\n",
            }
        )
    )
    found = contents(image.layers, store.open_blob, ())
    assert [(each.name, each.version) for each in found.packages] == [("x", "1"), ("y", "2")]
    assert found.release["VERSION_ID"] == "12"


def test_data_files_have_the_digest_of_what_is_there(store, make):
    """Whatever a label says of them."""
    image = make(layer({"data/x": b"bytes"}))
    (file,) = contents(image.layers, store.open_blob, ["/data/x", "/data/y"]).data
    assert (file.path, file.size) == ("/data/x", 5)
    assert file.digest.hex == hashlib.sha256(b"bytes").hexdigest()


def test_a_layer_that_is_not_what_its_image_says_is_refused(store, make):
    """The config names another diff_id."""
    image = make(layer({"x": b""}), diff_ids=[f"sha256:{'0' * 64}"])
    with pytest.raises(LayerError, match="its image says 000000000000"):
        contents(image.layers, store.open_blob, ())


@pytest.mark.parametrize(
    ("tar", "words"),
    [
        (layer({"../var/lib/dpkg/status": b""}), "leads upwards"),
        (layer({"var/lib/dpkg/status": b"x" * (33 << 20)}), "bytes"),
        (layer({"x": b"y"})[:700], "ends too early"),
        (b"no tar at all" * 100, "damaged"),
    ],
)
def test_hostile_layers_are_refused(store, make, tar, words):
    """With the layer's name, and before memory fills."""
    with pytest.raises(LayerError, match=words):
        contents(make(tar).layers, store.open_blob, ())
