"""The same image in Docker's words (schema 2), for tools that know no OCI media types.

Config and layers keep their bytes and digests: only manifests and indexes are written anew.
"""

from __future__ import annotations

from msgspec.structs import replace

from torchship import canonical
from torchship.digest import Descriptor
from torchship.errors import ManifestError
from torchship.oci import mediatypes, variant
from torchship.oci.documents import MANIFEST_LIMIT, read_index, read_manifest
from torchship.oci.store import Store


def as_docker(store: Store, descriptor: Descriptor) -> Descriptor:
    """Write a manifest or index of OCI in Docker's media types; return the new descriptor.

    Annotations are left out: schema 2 has no place for them. Only a variant's name stays beside
    its manifest, as Docker's own tools read descriptors. Raises `ManifestError` for what is
    neither.
    """
    if descriptor.media_type in (mediatypes.DOCKER_MANIFEST, mediatypes.DOCKER_INDEX):
        return descriptor
    where = str(descriptor.digest)
    if descriptor.media_type == mediatypes.OCI_INDEX:
        index = read_index(store.read(descriptor, MANIFEST_LIMIT), descriptor.media_type, where)
        document: dict[str, object] = {
            "manifests": [
                as_docker(store, child.checked(where)).as_json() for child in index.manifests
            ]
        }
    elif descriptor.media_type == mediatypes.OCI_MANIFEST:
        raw = store.read(descriptor, MANIFEST_LIMIT)
        manifest = read_manifest(raw, descriptor.media_type, where)
        document = {
            "config": _plain(manifest.config.checked(where)).as_json(),
            "layers": [_plain(layer.checked(where)).as_json() for layer in manifest.layers],
        }
    else:
        raise ManifestError(f"{where} is {descriptor.media_type}, which Docker has no word for")
    media_type = mediatypes.TO_DOCKER[descriptor.media_type]
    document |= {"schemaVersion": 2, "mediaType": media_type}
    written = store.put(canonical.encode(document), media_type)
    store.origins.add(written.digest, store.origins.get(descriptor.digest))
    name = variant.noted(descriptor)
    noted = {variant.VARIANT: name} if name else {}
    return replace(written, platform=descriptor.platform, annotations=noted)


def _plain(descriptor: Descriptor) -> Descriptor:
    media_type = mediatypes.TO_DOCKER.get(descriptor.media_type, descriptor.media_type)
    return Descriptor(media_type=media_type, digest=descriptor.digest, size=descriptor.size)
