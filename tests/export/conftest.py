"""Small images for the tests of exports: layers of a few files, in a store of their own."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile

import pytest

from torchship.oci import mediatypes
from torchship.oci.image import read_one
from torchship.oci.store import Store


@pytest.fixture
def store(tmp_path):
    """Give an empty store."""
    return Store.open(tmp_path / "store")


def layer(files, *, links=()):
    """Return a tar of files (None: a folder), and of hard links to them."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            archive.addfile(entry, io.BytesIO(content or b""))
        for path, target in links:
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.LNKTYPE, target
            archive.addfile(entry)
    return raw.getvalue()


@pytest.fixture
def make(store):
    """Give a function that puts an image of tars, with annotations of each, into the store."""

    def made(*tars, labels=None, annotations=(), architecture="amd64", diff_ids=None):
        blobs = [store.put(gzip.compress(each, mtime=0), mediatypes.OCI_GZIP) for each in tars]
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Labels": labels or {}},
            "rootfs": {
                "type": "layers",
                "diff_ids": diff_ids
                or [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in tars],
            },
        }
        written = store.put(json.dumps(config).encode(), mediatypes.OCI_CONFIG)
        noted = [*annotations, *[{}] * (len(blobs) - len(annotations))]
        manifest = {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "config": written.as_json(),
            "layers": [
                {**blob.as_json(), "annotations": note}
                for blob, note in zip(blobs, noted, strict=True)
            ],
        }
        put = store.put(json.dumps(manifest).encode(), mediatypes.OCI_MANIFEST)
        return read_one(store, put)

    return made
