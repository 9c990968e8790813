import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from torchship import canonical
from torchship.digest import Digest
from torchship.errors import StoreError
from torchship.layers.layer import key
from torchship.oci import mediatypes
from torchship.oci.assemble import index
from torchship.oci.image import read_one
from torchship.oci.prune import downloaded, free_downloads, prune
from torchship.oci.store import Store


def artifact(store, subject):
    """Put a record that refers to an image."""
    blank = store.put(b"{}", "application/vnd.oci.empty.v1+json")
    body = store.put(b'{"a":"record"}', "application/vnd.in-toto+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "artifactType": "application/vnd.torchship.run-record.v1+json",
        "config": blank.as_json(),
        "layers": [body.as_json()],
        "subject": subject.as_json(),
    }
    return store.put(canonical.encode(manifest), mediatypes.OCI_MANIFEST)


def test_what_an_image_needs_stays(store, image):
    """Nothing of a named image, or of an index with its platforms, is taken."""
    store.tag("many", index(store, [image(b"1"), image(b"2")]))
    before = set(store.blobs)
    pruned = prune(store)
    assert (pruned.blobs, pruned.layers, pruned.size) == (0, 0, 0)
    assert set(store.blobs) == before


def test_what_no_image_needs_goes(store, image, recipe):
    """A removed image's own blobs and derived layers go; what it shared stays."""
    kept, gone = image(b"kept"), image(b"gone")
    store.tag("kept", kept)
    store.tag("gone", gone)
    store.remove("gone")
    expected = {
        kept.digest,
        read_one(store, kept).config.digest,
        *(layer.digest for layer in read_one(store, kept).layers),
    }
    before = sum(store.blobs.path(digest).stat().st_size for digest in store.blobs)
    pruned = prune(store)
    assert set(store.blobs) == expected
    after = sum(store.blobs.path(digest).stat().st_size for digest in store.blobs)
    assert (pruned.blobs, pruned.layers, pruned.size) == (3, 1, before - after)
    assert store.known(key(recipe(b"gone")[0])) is None
    assert store.known(key(recipe(b"kept")[0])) is not None
    assert prune(store).size == 0


def test_young_derived_layers_can_be_kept(store, recipe):
    """With ``keep``, what a build made lately stays for the next one."""
    made = recipe(b"young")
    layer = store.derive(*made)
    old = recipe(b"old")
    store.derive(*old)
    path = store.home / "layers" / f"{key(old[0]).hex}.json"
    past = time.time() - 7200
    os.utime(path, (past, past))
    prune(store, keep=timedelta(hours=1))
    assert store.known(key(made[0])) == layer
    assert store.known(key(old[0])) is None
    prune(store)
    assert list(store.blobs) == []


def test_a_record_lives_as_long_as_its_image(store, image):
    """A referrer stays with its subject, and so does a referrer of that; then all go."""
    descriptor = image()
    store.tag("x", descriptor)
    record = artifact(store, descriptor)
    signature = artifact(store, record)
    store.attach(signature)
    store.attach(record)
    prune(store)
    assert {record.digest, signature.digest} <= set(store.blobs)
    store.remove("x")
    prune(store)
    assert list(store.blobs) == []
    assert len(store.entries().entries) == 0


def test_unpacked_folders_go_with_their_images(store, image):
    """The folder of a layer that an image has stays, with its lock; the others are removed."""
    descriptor = image()
    store.tag("x", descriptor)
    diff_id = read_one(store, descriptor).layers[0].diff_id.hex
    for name in (diff_id, "0" * 64, "part-abc"):
        folder = store.unpacked / name / "root" / "sub"
        folder.mkdir(parents=True)
        (folder / "file").write_text("12345")
        folder.chmod(0o555)
        (store.unpacked / f"{name}.lock").touch()
    pruned = prune(store)
    assert pruned.unpacked == 2
    assert pruned.size == 10
    assert {path.name for path in store.unpacked.iterdir()} == {diff_id, f"{diff_id}.lock"}


def test_entries_whose_blob_is_gone_are_forgotten(store, layer):
    """A derived layer without its blob is nothing."""
    made = layer(b"x")
    store.blobs.path(made.digest).unlink()
    assert prune(store).layers == 1


def test_a_damaged_manifest_is_told(store, image, said):
    """What an image loses to a fault of the disk is not lost in silence, named or not."""
    named, unnamed = image(b"1"), image(b"2")
    store.tag("x", named)
    store.attach(unnamed)
    for descriptor in (named, unnamed):
        path = store.blobs.path(descriptor.digest)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    prune(store)
    assert len([line for line in said.lines if "was damaged" in line]) == 2


def test_prune_waits_for_builds_and_then_says_that_the_store_is_in_use(store, layer):
    """What a running build has made, and not yet tagged, is safe from another's prune."""
    made = layer(b"being built")
    other = Store.open(store.home)
    with pytest.raises(StoreError, match="in use"):
        prune(other, wait=0.2)
    assert store.has(made.digest)
    store.release()
    prune(other)
    assert not store.has(made.digest)


def test_builds_wait_for_prune(store, layer, tmp_path):
    """A build that comes while a store is pruned begins when that is done."""
    layer(b"x")
    script = (
        "import sys; from pathlib import Path; from torchship.oci.store import Store\n"
        "Store.open(Path(sys.argv[1])).put(b'later', 'text/plain')"
    )
    with store.alone(0):
        process = subprocess.Popen([sys.executable, "-c", script, store.home])
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
    assert process.wait(20) == 0
    assert store.has(Digest.of(b"later"))


def test_what_another_tool_is_writing_is_left_alone(store):
    """A blob that no torchship has seen is removed only when it is old enough."""
    store.put(b"ours", "text/plain")
    theirs = store.blobs.path(Digest.of(b"theirs"))
    theirs.write_bytes(b"theirs")
    prune(store)
    assert list(store.blobs) == [Digest.of(b"theirs")]
    os.utime(theirs, (0, 0))
    prune(store)
    assert list(store.blobs) == []


def test_what_uv_unpacked_goes(store, image):
    """Wheels that uv took apart to read what they need are no part of any image."""
    store.tag("kept", image(b"kept"))
    unpacked = store.home / "uv" / "archive-v0" / "torch"
    unpacked.mkdir(parents=True)
    (unpacked / "libtorch.so").write_bytes(bytes(1000))
    assert prune(store).size == 1000
    assert not (store.home / "uv").exists()


def test_a_layer_with_long_paths_goes_too(store):
    """Folders of folders of long names are longer than any path that Linux takes."""
    name = "d" * 250
    here = Path.cwd()
    folder = store.unpacked / ("0" * 64) / "root"
    folder.mkdir(parents=True)
    try:
        os.chdir(folder)
        for _ in range(18):
            Path(name).mkdir()
            os.chdir(name)
        Path("file").write_text("12345")
    finally:
        os.chdir(here)
    store.put(b"x", "text/plain")
    assert prune(store).size >= 5
    assert list(store.unpacked.iterdir()) == []


def test_downloads_stay_until_they_are_given_up(store, image):
    """Images stay whole without what they were made of."""
    descriptor = image(b"kept")
    store.tag("kept", descriptor)
    path = store.downloads / "ab" / "abc" / "some.whl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a wheel")
    prune(store)
    assert downloaded(store) == 7
    assert free_downloads(store) == 7
    assert (path.exists(), downloaded(store)) == (False, 0)
    assert free_downloads(store) == 0
    assert store.has(descriptor.digest)
