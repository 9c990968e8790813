"""What is written into `index.json`, which every command reads whole."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from torchship.oci import artifact
from torchship.oci.index import REF_NAME

BOOK = {"org.example.book": "x" * (1 << 20)}
RECORD = "application/vnd.example.record.v1+json"


def written(store):
    """Return the entries of the store's index.json."""
    return json.loads((store.oci / "index.json").read_bytes())["manifests"]


def test_annotations_of_what_has_no_name_stay_in_its_manifest(store, image):
    """They may be a stranger's: a thousand of them must not make every command slow."""
    subject = image()
    noted = {"org.example": "x", **BOOK}
    made = artifact.attach(store, subject, RECORD, annotations=noted)
    assert written(store) == [
        {
            "mediaType": made.media_type,
            "digest": str(made.digest),
            "size": made.size,
            "artifactType": RECORD,
        }
    ]
    (found,) = artifact.referrers(store, subject.digest)
    assert (found.artifact_type, found.annotations) == (RECORD, noted)


@pytest.mark.parametrize(
    "words",
    [
        {"annotations": BOOK},
        {"platform": {"architecture": "x" * (1 << 20), "os": "linux"}},
        {"artifact_type": f"a/{'x' * (1 << 20)}"},
    ],
)
def test_there_is_no_room_for_long_words(store, image, words):
    """With a name or without, an entry is small: what is left out is in the manifest, if at all."""
    named, nameless = image(b"1"), image(b"2")
    store.tag("me/x:v1", replace(named, **words))
    store.tag("me/x:v2", replace(named, **words))
    store.attach(replace(nameless, **words))
    assert (store.oci / "index.json").stat().st_size < 2000
    assert store.find("me/x:v1").digest == store.find("me/x:v2").digest == named.digest
    assert store.find(str(nameless.digest)).digest == nameless.digest


def test_short_words_about_a_name_are_kept(store, image):
    """An image keeps what its index, or the archive that it came in, said of it."""
    described = replace(
        image(), annotations={"a": "b"}, platform={"architecture": "amd64", "os": "linux"}
    )
    store.tag("me/x:v1", described)
    (entry,) = written(store)
    assert entry["annotations"] == {"a": "b", REF_NAME: "docker.io/me/x:v1"}
    assert entry["platform"] == described.platform
    assert store.find("me/x:v1") == described
