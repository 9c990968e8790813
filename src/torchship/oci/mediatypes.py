"""The media types of images, in OCI's words and in Docker's.

Sources: OCI image-spec v1.1, media-types.md ("Compatibility Matrix"); Docker's image manifest
version 2, schema 2.
"""

from __future__ import annotations

from types import MappingProxyType

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
OCI_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"

DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"

INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})

COMPRESSION = MappingProxyType(
    {
        OCI_TAR: "",
        OCI_GZIP: "gzip",
        OCI_ZSTD: "zstd",
        DOCKER_TAR: "",
        DOCKER_GZIP: "gzip",
        DOCKER_ZSTD: "zstd",
    }
)
"""The layers that torchship reads, and how each is compressed: ``""`` is a plain tar."""

TO_DOCKER = MappingProxyType(
    {
        OCI_INDEX: DOCKER_INDEX,
        OCI_MANIFEST: DOCKER_MANIFEST,
        OCI_CONFIG: DOCKER_CONFIG,
        OCI_TAR: DOCKER_TAR,
        OCI_GZIP: DOCKER_GZIP,
        OCI_ZSTD: DOCKER_ZSTD,
    }
)
"""Docker's word for each of OCI's."""
