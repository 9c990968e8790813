"""A published image as a base: which Python it has."""

import gzip
import io
import json
import tarfile

import pytest
import zstandard
from tests.integration import proxy as faults

from torchship.digest import Digest
from torchship.errors import LayerError, ProjectError
from torchship.layers.layer import Layer
from torchship.oci.base import base_image, fetch_base, python_version, resolve_image, users
from torchship.oci.mediatypes import OCI_CONFIG, OCI_GZIP, OCI_MANIFEST, OCI_TAR, OCI_ZSTD
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
PACK = {
    OCI_TAR: lambda data: data,
    OCI_GZIP: gzip.compress,
    OCI_ZSTD: lambda data: zstandard.ZstdCompressor().compress(data),
}


def layer(store, files, media_type=OCI_GZIP):
    """Put a layer of files, or of links where the content is text, into the store."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    described = store.put(PACK[media_type](tar.getvalue()), media_type)
    return Layer(
        digest=described.digest,
        diff_id=Digest.of(tar.getvalue()),
        size=described.size,
        unpacked_size=len(tar.getvalue()),
        media_type=media_type,
    )


DEBIAN = {"usr/bin/python3.11": b"", "usr/bin/python3": "python3.11", "var/lib/dpkg/status": STATUS}
LOCAL = {
    "./usr/local/bin/python3.12": b"",
    "usr/local/include/python3.12/patchlevel.h": b'#define PY_VERSION      "3.12.7"\n',
}


@pytest.mark.parametrize("media_type", [OCI_TAR, OCI_GZIP, OCI_ZSTD])
def test_debians_python_is_read_from_dpkg(store, media_type):
    """The version is the package's, without Debian's revision, in any compression."""
    assert python_version(store, [layer(store, DEBIAN, media_type)], "x") == "3.11.2"


def test_usr_local_goes_before_usr_wherever_its_layer_is(store):
    """PATH decides, not the order of the layers."""
    for layers in ([DEBIAN, LOCAL], [LOCAL, DEBIAN]):
        made = [layer(store, files) for files in layers]
        assert python_version(store, made, "x") == "3.12.7"


def test_the_link_chooses_among_several(store):
    """python3 is what python3 links to, and else the newest."""
    files = {"usr/bin/python3.9": b"", "usr/bin/python3.11": b"", "usr/bin/python3.10": b""}
    assert python_version(store, [layer(store, files)], "x") == "3.11"
    chosen = layer(store, files | {"usr/bin/python3": "python3.10"})
    assert python_version(store, [chosen], "x") == "3.10"


def test_a_base_without_python_is_an_error(store):
    """The error names the image and a base that would do."""
    with pytest.raises(ProjectError, match="image:tag has no Python") as caught:
        python_version(store, [layer(store, {"bin/sh": b""})], "image:tag")
    assert "python:3.11-slim" in caught.value.hint


@pytest.mark.parametrize(
    "data",
    [b"\x1f\x8b junk", b"junk" * 1000, gzip.compress(b"junk" * 999)],
    ids=["cut off", "no gzip", "no tar"],
)
def test_a_damaged_layer_is_an_error(store, data):
    """No half-read layer tells a version."""
    described = store.put(data, OCI_GZIP)
    bad = Layer(digest=described.digest, diff_id=described.digest, size=1, unpacked_size=1)
    with pytest.raises(LayerError, match="cannot be read"):
        python_version(store, [bad], "x")


@pytest.fixture
def publish(store, tmp_path, monkeypatch):
    """Serve an image from a small server; return its reference."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with faults.running() as server:

        def serve(layers, environment):
            config = {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": environment},
                "rootfs": {"type": "layers", "diff_ids": [str(one.diff_id) for one in layers]},
            }
            described = store.put(json.dumps(config).encode(), OCI_CONFIG)
            manifest = {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": described.as_json(),
                "layers": [one.descriptor.as_json() for one in layers],
            }
            raw = json.dumps(manifest).encode()
            server.on("GET", "/manifests/", faults.answered(200, {}, raw), times=-1)
            for blob in (described.digest, *(one.digest for one in layers)):
                data = store.blobs.path(blob).read_bytes()
                server.on("GET", blob.hex, faults.answered(200, {}, data), times=-1)
            return f"{server.host}/me/base:v1", Digest.of(raw), server

        yield serve


def test_a_stated_version_needs_no_layer(store, publish):
    """PYTHON_VERSION is enough: manifest and config are all that is fetched."""
    name, digest, server = publish([layer(store, DEBIAN)], ["PYTHON_VERSION=3.11.9"])
    found = resolve_image(name, AMD64, store=store, progress=SILENT)
    assert (found.digest, found.python) == (digest, "3.11.9")
    assert server.count("GET", "/blobs/") == 1


def test_layers_are_fetched_where_nothing_is_stated(store, publish, tmp_path):
    """The base's layers come into the store, by digest, and are not fetched again."""
    from torchship.oci.store import Store

    made = layer(store, DEBIAN)
    name, digest, server = publish([made], ["PATH=/usr/bin"])
    empty = Store.open(tmp_path / "empty")
    assert resolve_image(name, AMD64, store=empty, progress=SILENT).python == "3.11.2"
    before = server.count("GET", made.digest.hex)
    image = base_image(name, digest, AMD64, store=empty)
    fetch_base(name, image.layers, store=empty, progress=SILENT)
    assert [one.digest for one in image.layers] == [made.digest]
    assert [one.diff_id for one in image.layers] == [made.diff_id]
    assert server.count("GET", made.digest.hex) == before == 1


def test_the_users_of_a_base_are_those_of_its_topmost_layer(store):
    """A layer's file replaces what is below it, and its whiteout removes that."""
    low = layer(store, {"etc/passwd": b"low\n", "./etc/group": b"group\n"})
    high = layer(store, {"etc/passwd": b"high\n"}, OCI_ZSTD)
    gone = layer(store, {"etc/.wh.group": b"", "etc/passwd": "elsewhere"})
    assert users(store, [low, high]) == (b"high\n", b"group\n")
    assert users(store, [low, high, gone]) == (None, b"")
    assert users(store, []) == (b"", b"")
