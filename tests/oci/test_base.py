"""A published image as a base: which Python it has."""

import gzip

import pytest
from tests import bases
from tests.bases import image, layer
from tests.integration import proxy as faults

from torchship.errors import LayerError, ProjectError
from torchship.layers.layer import Layer
from torchship.oci.base import base_image, fetch_base, find_python, resolve_image, users
from torchship.oci.image import read_image
from torchship.oci.mediatypes import OCI_GZIP, OCI_TAR, OCI_ZSTD
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT

AMD64 = Platform("linux", "amd64")
STATUS = b"""Package: python3-minimal
Status: install ok installed
Version: 3.99.0-1

Package: python3.11-minimal
Status: install ok installed
Architecture: amd64
Version: 3.11.2-6+deb12u6

"""
DEBIAN = {"usr/bin/python3.11": b"", "usr/bin/python3": "python3.11", "var/lib/dpkg/status": STATUS}
LOCAL = {
    "./usr/local/bin/python3.12": b"",
    "usr/local/bin/python3": "python3.12",
    "usr/local/include/python3.12/patchlevel.h": b'#define PY_VERSION      "3.12.7"\n',
}


def found(store, layers, *environment):
    """Find the Python of an image of layers that are in the store: where it is, its version."""
    made = [layer(store, files) for files in layers]
    base = read_image(store, image(store, made, environment=environment), AMD64)
    python = find_python(base, "image:tag", store=store, fetch=lambda _: None)
    return python.path, python.version


@pytest.mark.parametrize("media_type", [OCI_TAR, OCI_GZIP, OCI_ZSTD])
def test_debians_python_is_read_from_dpkg(store, media_type):
    """The version is the package's, without Debian's revision, in any compression."""
    base = read_image(store, image(store, [layer(store, DEBIAN, media_type)]), AMD64)
    python = find_python(base, "x", store=store, fetch=lambda _: None)
    assert (python.path, python.version) == ("/usr/bin/python3.11", "3.11.2")


def test_usr_local_goes_before_usr_wherever_its_layer_is(store):
    """PATH decides, not the order of the layers, nor what a variable says."""
    for layers in ([DEBIAN, LOCAL], [LOCAL, DEBIAN]):
        for stated in ([], ["PYTHON_VERSION=3.11.2"]):
            assert found(store, layers, *stated) == ("/usr/local/bin/python3.12", "3.12.7")


def test_the_link_chooses_among_several(store):
    """python3 is what python3 links to, and else the newest; a link to nothing chooses none."""
    files = {
        f"usr/{path}": b'#define PY_VERSION "3.%d.1"' % minor
        for minor in (9, 11, 10)
        for path in (f"bin/python3.{minor}", f"include/python3.{minor}/patchlevel.h")
    }
    assert found(store, [files]) == ("/usr/bin/python3.11", "3.11.1")
    chosen = files | {"usr/bin/python3": "python3.10"}
    assert found(store, [chosen]) == ("/usr/bin/python3.10", "3.10.1")
    dangling = files | {"usr/bin/python3": "python3.8"}
    assert found(store, [dangling]) == ("/usr/bin/python3.11", "3.11.1")


@pytest.mark.parametrize("stated", ["3.11", "3.11.9", "3.12.1", ""])
def test_a_variable_does_not_tell_where_python_is(store, stated):
    """Debian's Python under a PYTHON_VERSION is Debian's, in its place and of its version."""
    at = found(store, [DEBIAN], f"PYTHON_VERSION={stated}")
    assert at == ("/usr/bin/python3.11", "3.11.2")


def test_a_variable_tells_the_version_that_no_file_tells(store):
    """If it is one of the Python that was found; else the error says what to do."""
    bare = {"usr/local/bin/python3.11": b"", "usr/local/bin/python3": "python3.11"}
    at = found(store, [bare], "PYTHON_VERSION=3.11.9")
    assert at == ("/usr/local/bin/python3.11", "3.11.9")
    for environment in ([], ["PYTHON_VERSION=3.12.1"], ["PYTHON_VERSION=3.11"]):
        with pytest.raises(ProjectError, match="nothing in it tells") as caught:
            found(store, [bare], *environment)
        assert "PYTHON_VERSION" in caught.value.hint


@pytest.mark.parametrize(
    "whiteout",
    [
        "usr/local/bin/.wh.python3.12",
        "usr/local/bin/.wh..wh..opq",
        "usr/.wh.local",
        "./usr/.wh.local",
    ],
)
def test_a_python_that_an_upper_layer_removed_is_not_found(store, whiteout):
    """What is left is Debian's, which comes after it."""
    at = found(store, [LOCAL, {whiteout: b""}, DEBIAN])
    assert at == ("/usr/bin/python3.11", "3.11.2")


@pytest.mark.parametrize("environment", [[], ["PYTHON_VERSION=3.11.9"]])
def test_a_base_without_python_is_an_error(store, environment):
    """It names the image and a base that would do; conda's Python, stated or not, is elsewhere."""
    with pytest.raises(ProjectError, match="image:tag has no Python") as caught:
        found(store, [{"bin/sh": b"", "opt/conda/bin/python3.11": b""}], *environment)
    assert "python:3.11-slim" in caught.value.hint


@pytest.mark.parametrize(
    "data",
    [b"\x1f\x8b junk", b"junk" * 1000, gzip.compress(b"junk" * 999)],
    ids=["cut off", "no gzip", "no tar"],
)
def test_a_damaged_layer_is_an_error(store, data):
    """Nothing is told of a half-read layer."""
    described = store.put(data, OCI_GZIP)
    bad = Layer(digest=described.digest, diff_id=described.digest, size=1, unpacked_size=1)
    with pytest.raises(LayerError, match="cannot be read"):
        users(store, [bad])


@pytest.fixture
def publish(store, tmp_path, monkeypatch):
    """Serve an image from a small server; return its reference."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with faults.running() as server:

        def serve(layers, environment):
            described = image(store, layers, environment=environment)
            return bases.serve(server, store, described), described.digest, server

        yield serve


def test_dockers_python_is_found_by_one_layer(store, publish, tmp_path):
    """Those below the one that has it are not fetched; nor is that one fetched again."""
    debian, local = layer(store, DEBIAN), layer(store, LOCAL)
    name, digest, server = publish([debian, local], ["PYTHON_VERSION=3.12.7"])
    empty = Store.open(tmp_path / "empty")
    told = resolve_image(name, AMD64, store=empty, progress=SILENT)
    assert (told.digest, told.python) == (digest, "3.12.7")
    assert told.interpreter == "/usr/local/bin/python3.12"
    assert resolve_image(name, AMD64, store=empty, progress=SILENT) == told
    assert server.count("GET", local.digest.hex) == 1
    assert server.count("GET", debian.digest.hex) == 0


def test_layers_that_were_looked_into_are_not_fetched_again(store, publish, tmp_path):
    """The base's layers come into the store, by digest, for the build that follows."""
    made = layer(store, DEBIAN)
    name, digest, server = publish([made], ["PATH=/usr/bin"])
    empty = Store.open(tmp_path / "empty")
    assert resolve_image(name, AMD64, store=empty, progress=SILENT).python == "3.11.2"
    before = server.count("GET", made.digest.hex)
    below = base_image(name, digest, AMD64, store=empty)
    fetch_base(name, below.layers, store=empty, progress=SILENT)
    assert [one.digest for one in below.layers] == [made.digest]
    assert [one.diff_id for one in below.layers] == [made.diff_id]
    assert server.count("GET", made.digest.hex) == before == 1


def test_the_users_of_a_base_are_those_of_its_topmost_layer(store):
    """A layer's file replaces what is below it, and its whiteout removes that."""
    low = layer(store, {"etc/passwd": b"low\n", "./etc/group": b"group\n"})
    high = layer(store, {"etc/passwd": b"high\n"}, OCI_ZSTD)
    gone = layer(store, {"etc/.wh.group": b"", "etc/passwd": "elsewhere"})
    assert users(store, [low, high]) == (b"high\n", b"group\n")
    assert users(store, [low, high, gone]) == (None, b"")
    assert users(store, []) == (b"", b"")
