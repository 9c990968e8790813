"""What we write is valid by the image specification's own JSON schemas.

They come with Debian's golang-github-opencontainers-image-spec-dev (Apache-2.0).
"""

import json
import os
from pathlib import Path

import pytest
from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from torchship.oci import artifact
from torchship.oci.assemble import index
from torchship.oci.image import read_one
from torchship.platform import Platform

SCHEMAS = Path("/usr/share/gocode/src/github.com/opencontainers/image-spec/schema")


def anonymous(schema):
    """Take a schema's id away: the files refer to each other by file name."""
    return {key: value for key, value in schema.items() if key != "id"}


@pytest.fixture
def errors():
    """Return a function that lists what a document breaks of a schema."""
    if not SCHEMAS.is_dir():
        if os.environ.get("TORCHSHIP_REQUIRE_ENGINES") == "1":
            pytest.fail("golang-github-opencontainers-image-spec-dev is not installed")
        pytest.skip("golang-github-opencontainers-image-spec-dev is not installed")
    schemas = {
        path.name: json.loads(path.read_bytes(), object_hook=anonymous)
        for path in SCHEMAS.glob("*.json")
    }
    registry = Registry().with_resources(
        (name, Resource.from_contents(schema, default_specification=DRAFT4))
        for name, schema in schemas.items()
    )

    def check(name, raw):
        validator = Draft4Validator({"$ref": name}, registry=registry)
        return [error.message for error in validator.iter_errors(json.loads(raw))]

    return check


def test_manifest_config_index_and_layout_are_valid(store, image, errors):
    """All four kinds of documents pass the schemas, and the schemas can say no."""
    amd64, arm64 = image(b"1"), image(b"2", Platform("linux", "arm64"))
    both = index(store, [amd64, arm64])
    store.tag("mnist:v0.1", both)
    store.tag("localhost:5000/mnist", amd64)
    attached = artifact.attach(
        store, amd64, "application/vnd.example.record", annotations={"a": "b"}
    )
    assert errors("image-manifest-schema.json", store.read(attached)) == []
    for descriptor in (amd64, arm64):
        found = read_one(store, descriptor)
        assert errors("image-manifest-schema.json", found.raw_manifest) == []
        assert errors("config-schema.json", found.raw_config) == []
    assert errors("image-index-schema.json", store.read(both)) == []
    assert errors("image-index-schema.json", (store.oci / "index.json").read_bytes()) == []
    assert errors("image-layout-schema.json", (store.oci / "oci-layout").read_bytes()) == []
    wrong = found.raw_manifest.replace(b"sha256:", b"SHA256/", 1)
    assert errors("image-manifest-schema.json", wrong)
    assert errors("config-schema.json", b'{"os": "linux"}')
