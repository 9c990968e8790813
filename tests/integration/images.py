"""Small images in a store, made of given bytes: what transfers need, and no more."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
from collections.abc import Sequence

from torchship import canonical
from torchship.digest import Descriptor, Digest
from torchship.oci import mediatypes
from torchship.oci.store import Store


def layer(name: str, size: int) -> tuple[bytes, Digest]:
    """Return a gzip-compressed layer with one file that cannot be compressed; and its diff_id."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo(f"data/{name}")
        entry.size = size
        archive.addfile(entry, io.BytesIO(random.Random(name).randbytes(size)))
    raw = tar.getvalue()
    return gzip.compress(raw, 1, mtime=0), Digest(hashlib.sha256(raw).hexdigest())


def image(
    store: Store,
    layers: Sequence[tuple[str, int]],
    *,
    architecture: str = "amd64",
    environment: Sequence[str] = (),
) -> Descriptor:
    """Put an image of such layers into a store; return its manifest's descriptor."""
    made = [layer(name, size) for name, size in layers]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["true"], "Env": list(environment)},
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for _, diff_id in made]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": store.put(canonical.encode(config), mediatypes.OCI_CONFIG).as_json(),
        "layers": [store.put(data, mediatypes.OCI_GZIP).as_json() for data, _ in made],
    }
    return store.put(canonical.encode(manifest), mediatypes.OCI_MANIFEST)


def index(store: Store, images: dict[str, Descriptor]) -> Descriptor:
    """Put an index over images, by architecture, into a store."""
    document = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": [
            {**child.as_json(), "platform": {"architecture": name, "os": "linux"}}
            for name, child in images.items()
        ],
    }
    return store.put(canonical.encode(document), mediatypes.OCI_INDEX)
