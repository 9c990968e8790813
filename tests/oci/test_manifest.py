"""Manifests and indexes from strangers."""

import json

import pytest

from torchship.errors import ManifestError
from torchship.oci.manifest import Index, Manifest, parse
from torchship.oci.mediatypes import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from torchship.platform import Platform

AMD64 = Platform("linux", "amd64")
BLOB = {"mediaType": "application/octet-stream", "digest": "sha256:" + "a" * 64, "size": 3}
MANIFEST = {"schemaVersion": 2, "config": BLOB, "layers": [BLOB, BLOB]}
INDEX = {"schemaVersion": 2, "manifests": [BLOB]}


def read(document, media_type=""):
    """Parse a document that is given as a value, or as raw text."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse(raw, media_type, "x")


@pytest.mark.parametrize("media_type", ["", "text/plain", OCI_MANIFEST])
def test_a_manifest_is_known_by_its_type_or_its_shape(media_type):
    """Registries that serve everything as text are understood."""
    manifest = read(MANIFEST, media_type)
    assert isinstance(manifest, Manifest)
    assert manifest.media_type == OCI_MANIFEST
    assert len(manifest.layers) == 2
    assert len(manifest.blobs) == 1
    index = read(INDEX)
    assert isinstance(index, Index)
    assert index.media_type == OCI_INDEX


def variant(name, digit):
    """Return an entry of an index for one platform, of a variant."""
    noted = {"annotations": {"dev.torchship.variant": name}} if name else {}
    digest = "sha256:" + digit * 64
    return {**BLOB, **noted, "digest": digest, "platform": {"os": "linux", "architecture": "amd64"}}


def test_the_first_of_a_platform_is_taken_unless_a_variant_is_chosen():
    """Who chooses is shown the variants in their order, and asked only where there are any."""
    index = read({"schemaVersion": 2, "manifests": [variant("cpu", "a"), variant("cu130", "b")]})
    shown = []

    def last(names):
        shown.append(names)
        return names[-1]

    assert index.matching(AMD64, "x").digest.hex == "a" * 64
    assert index.matching(AMD64, "x", last).digest.hex == "b" * 64
    assert shown == [("cpu", "cu130")]
    with pytest.raises(ManifestError, match="holds no variant cu118 for linux/amd64") as caught:
        index.matching(AMD64, "x", lambda _: "cu118")
    assert caught.value.hint == "it holds: cpu, cu130"
    plain = read({"schemaVersion": 2, "manifests": [variant("", "a"), variant("", "b")]})
    assert plain.matching(AMD64, "x", last).digest.hex == "a" * 64
    assert len(shown) == 1


@pytest.mark.parametrize("value", [[BLOB], [], {}, "x", 1, False])
def test_a_document_that_could_be_read_two_ways_is_refused(value):
    """image-spec's CVE-2021-41190: what is a manifest to one tool must be no index to another."""
    with pytest.raises(ManifestError, match="read two ways"):
        read({**MANIFEST, "manifests": value}, OCI_MANIFEST)
    for name in ("layers", "config"):
        with pytest.raises(ManifestError, match="read two ways"):
            read({**INDEX, name: value}, OCI_INDEX)


def test_schema_2_of_docker_is_read():
    """Docker's types have the same fields, and state them."""
    assert read({**MANIFEST, "mediaType": DOCKER_MANIFEST}, DOCKER_MANIFEST).layers
    assert read({**INDEX, "mediaType": DOCKER_INDEX}).media_type == DOCKER_INDEX


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        (b"", ""),
        (b"<html>", ""),
        (b"\xff\xfe", ""),
        (b"[" * 100_000, ""),
        (b"[]", ""),
        ({}, ""),
        ({**MANIFEST, "schemaVersion": 3}, ""),
        ({"schemaVersion": 1, "fsLayers": []}, ""),
        ({**MANIFEST, "config": None}, ""),
        ({**MANIFEST, "layers": None}, ""),
        ({**MANIFEST, "layers": [{**BLOB, "size": -1}]}, ""),
        ({**MANIFEST, "layers": [{**BLOB, "size": 1 << 70}]}, ""),
        ({**MANIFEST, "layers": [{**BLOB, "digest": "sha256:xyz"}]}, ""),
        ({**MANIFEST, "layers": [{**BLOB, "digest": "md5:" + "a" * 32}]}, ""),
        ({**MANIFEST, "layers": [{**BLOB, "digest": "sha256:../../../etc/passwd"}]}, ""),
        ({**MANIFEST, "layers": [{**BLOB, "mediaType": "a/b\n"}]}, ""),
        ({**MANIFEST, "layers": [{**BLOB, "mediaType": "\uff41/b"}]}, ""),
        ({**MANIFEST, "manifests": [BLOB]}, OCI_MANIFEST),
        ({**MANIFEST, "manifests": [BLOB]}, OCI_INDEX),
        ({**MANIFEST, "mediaType": OCI_INDEX}, OCI_MANIFEST),
        (MANIFEST, OCI_INDEX),
        ({**MANIFEST, "mediaType": "image/png"}, ""),
    ],
)
def test_what_is_not_a_manifest_is_refused(document, media_type):
    """Malformed, ambiguous and mislabelled documents are errors, never half-read."""
    with pytest.raises(ManifestError):
        read(document, media_type)


def test_a_platform_is_chosen_from_an_index():
    """The first match is taken; attestations are for no platform."""
    entries = [
        {**BLOB, "digest": "sha256:" + digit * 64, "platform": {"os": system, "architecture": cpu}}
        for digit, system, cpu in [
            ("0", "unknown", "unknown"),
            ("1", "linux", "arm64"),
            ("2", "linux", "amd64"),
            ("3", "linux", "amd64"),
        ]
    ]
    index = read({"schemaVersion": 2, "manifests": entries})
    assert index.matching(Platform("linux", "amd64"), "x").digest.hex == "2" * 64
    only = read({"schemaVersion": 2, "manifests": entries[:2]})
    with pytest.raises(ManifestError) as caught:
        only.matching(Platform("linux", "amd64"), "x")
    assert caught.value.hint == "it holds: linux/arm64"
