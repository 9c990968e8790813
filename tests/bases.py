"""Published base images of a test's own: layers of given files, served by a small server."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence

import zstandard
from tests.integration import proxy as faults
from tests.integration.proxy import FaultProxy

from torchship.digest import Descriptor, Digest
from torchship.layers.layer import Layer
from torchship.oci.mediatypes import (
    OCI_CONFIG,
    OCI_GZIP,
    OCI_INDEX,
    OCI_MANIFEST,
    OCI_TAR,
    OCI_ZSTD,
)
from torchship.oci.store import Store

_PACK = {
    OCI_TAR: lambda data: data,
    OCI_GZIP: gzip.compress,
    OCI_ZSTD: lambda data: zstandard.ZstdCompressor().compress(data),
}


def layer(store: Store, files: Mapping[str, bytes | str], media_type: str = OCI_GZIP) -> Layer:
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
    described = store.put(_PACK[media_type](tar.getvalue()), media_type)
    return Layer(
        digest=described.digest,
        diff_id=Digest.of(tar.getvalue()),
        size=described.size,
        unpacked_size=len(tar.getvalue()),
        media_type=media_type,
    )


def image(
    store: Store,
    layers: Sequence[Layer],
    *,
    environment: Sequence[str] = (),
    architecture: str = "amd64",
) -> Descriptor:
    """Put an image of layers into the store; return its manifest's descriptor."""
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": list(environment)},
        "rootfs": {"type": "layers", "diff_ids": [str(one.diff_id) for one in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": store.put(json.dumps(config).encode(), OCI_CONFIG).as_json(),
        "layers": [one.descriptor.as_json() for one in layers],
    }
    return store.put(json.dumps(manifest).encode(), OCI_MANIFEST)


def index(store: Store, images: Mapping[str, Descriptor]) -> Descriptor:
    """Put an index over images, by architecture, into the store."""
    manifests = [
        {**one.as_json(), "platform": {"architecture": name, "os": "linux"}}
        for name, one in images.items()
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return store.put(json.dumps(document).encode(), OCI_INDEX)


def serve(server: FaultProxy, store: Store, top: Descriptor) -> str:
    """Let a server answer for all that a store holds, with an image under a tag of its own."""
    for path in store.blobs.path(top.digest).parent.iterdir():
        if len(path.name) == 64:
            data = path.read_bytes()
            kind = json.loads(data).get("mediaType", "") if data.startswith(b"{") else ""
            headers = {"Content-Type": kind} if kind else {}
            server.on("GET", path.name, faults.answered(200, headers, data), times=-1)
            if path.name == top.digest.hex:
                server.on("GET", "/manifests/v1$", faults.answered(200, headers, data), times=-1)
    return f"{server.host}/me/base:v1"
