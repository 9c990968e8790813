"""Artifacts: manifests about an image, kept beside it in the store."""

from __future__ import annotations

import json

import pytest

from torchship.digest import Digest
from torchship.errors import ManifestError
from torchship.oci import artifact, mediatypes
from torchship.oci.prune import prune

RECORD = "application/vnd.example.record.v1+json"
STATEMENT = "application/vnd.in-toto+json"


def test_an_artifact_is_read_back(store, image):
    """Type, subject, annotations and content come back as they were given."""
    subject = image()
    content = artifact.Content(b'{"a":1}', STATEMENT, "record.json")
    made = artifact.attach(store, subject, RECORD, (content,), {"org.example": "x"})
    found = artifact.read(store, made)
    assert (found.artifact_type, found.subject) == (RECORD, subject.digest)
    assert found.annotations == {"org.example": "x"} == made.annotations
    (layer,) = found.layers
    assert (layer.media_type, layer.annotations) == (
        STATEMENT,
        {"org.opencontainers.image.title": "record.json"},
    )
    assert store.read(layer) == b'{"a":1}'


def test_the_manifest_is_what_the_specification_says(store, image):
    """An empty config, which is there; without content, an empty layer stands for it."""
    subject = image()
    made = artifact.attach(store, subject, RECORD)
    document = json.loads(store.read(made))
    empty = {"mediaType": mediatypes.OCI_EMPTY, "digest": str(Digest.of(b"{}")), "size": 2}
    assert document == {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "artifactType": RECORD,
        "config": empty,
        "layers": [empty],
        "subject": {
            "mediaType": subject.media_type,
            "digest": str(subject.digest),
            "size": subject.size,
        },
    }
    assert store.has(Digest.of(b"{}"))


def test_artifacts_are_listed_by_subject_and_type(store, image):
    """Each image has its own, each once, whatever was attached how often."""
    one, other = image(b"one"), image(b"other")
    first = artifact.attach(store, one, RECORD, (artifact.Content(b"1", STATEMENT, "1"),))
    second = artifact.attach(store, one, "application/vnd.example.signature")
    artifact.attach(store, one, RECORD, (artifact.Content(b"1", STATEMENT, "1"),))
    third = artifact.attach(store, other, RECORD)
    assert artifact.referrers(store, one.digest) == (first, second)
    assert artifact.referrers(store, one.digest, RECORD) == (first,)
    assert artifact.referrers(store, other.digest) == (third,)
    assert artifact.referrers(store, first.digest) == ()


def test_an_artifact_lives_as_long_as_its_subject(store, image):
    """`prune` keeps it with the image, and takes it with the image."""
    subject = image()
    store.tag("mnist", subject)
    made = artifact.attach(store, subject, RECORD, (artifact.Content(b"1", STATEMENT, "1"),))
    prune(store)
    assert artifact.referrers(store, subject.digest) == (made,)
    assert store.read(artifact.read(store, made).layers[0]) == b"1"
    store.remove("mnist")
    prune(store)
    assert artifact.referrers(store, subject.digest) == ()
    assert not store.has(made.digest)


def test_what_is_no_manifest_is_no_artifact(store):
    """A blob that was described as one is refused, and listed nowhere."""
    broken = store.put(b"[]", mediatypes.OCI_MANIFEST)
    store.attach(broken)
    with pytest.raises(ManifestError):
        artifact.read(store, broken)
    assert artifact.referrers(store, Digest.of(b"x")) == ()
