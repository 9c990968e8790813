"""What is attached to an image: found by the referrers API, or by the tag that stands in for it.

Source: OCI distribution-spec v1.1, "Listing Referrers", "Pushing Manifests with Subject" and
"Unavailable Referrers API".
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable

from torchship import canonical
from torchship.digest import Descriptor, Digest
from torchship.errors import ManifestError, RegistryError
from torchship.oci.documents import read_index
from torchship.oci.manifest import Index, parse
from torchship.oci.mediatypes import OCI_INDEX
from torchship.oci.reference import Reference
from torchship.oci.registry.answer import Answer
from torchship.oci.registry.client import Registry

_UNAVAILABLE = frozenset({400, 404, 405, 501})
_FALLBACK = re.compile(r"sha256-[0-9a-f]{64}")
_ROUNDS = 8
"""Writers of one tag that may come between: each round, one of them gets through."""

_LARGEST = 16 << 20  # bytes of all pages of a list

_SHORTEST = 0.03  # seconds that reading and writing a tag take elsewhere, if not here


def referrers(
    registry: Registry, repository: str, subject: Digest, artifact_type: str | None = None
) -> tuple[Descriptor, ...]:
    """Return the descriptors of what refers to ``subject``, of one type where asked for.

    Raises `RegistryError` or `ManifestError` for lists that are not what they should be.
    """
    found = _from_api(registry, repository, subject)
    if found is None:
        found = _read(registry, _tag(registry, repository, subject))
    return tuple(
        entry for entry in found if artifact_type is None or entry.artifact_type == artifact_type
    )


def attach(
    registry: Registry, repository: str, raw: bytes, descriptor: Descriptor, subject: Digest
) -> None:
    """Send a manifest whose ``subject`` is an image of the repository, so that it is found.

    ``descriptor`` carries the manifest's artifact type and annotations. Where the registry has
    no referrers API, the tag ``sha256-<hex>`` is rewritten, and read again: the spec has no
    lock, so another writer may have come between.
    """
    name = Reference(registry=registry.host, repository=repository, digest=descriptor.digest)
    answer = registry.put_manifest(name, raw, descriptor.media_type)
    # "If the registry supports the referrers API, the response MUST include OCI-Subject."
    if answer.headers.get("OCI-Subject") is not None:
        return
    tag = _tag(registry, repository, subject)
    for _ in range(_ROUNDS):
        began = time.monotonic()
        present = _read(registry, tag)
        if any(entry.digest == descriptor.digest for entry in present):
            return
        document = _index((*present, descriptor))
        registry.put_manifest(tag, document, OCI_INDEX)
        # Whoever read the list before we wrote it will write it without us. Look again when
        # they have: after longer than it takes to read and write, each at another time.
        took = time.monotonic() - began
        time.sleep(random.uniform(2.0, 4.0) * max(took, _SHORTEST))  # noqa: S311 (spreads load)
        if any(entry.digest == descriptor.digest for entry in _read(registry, tag)):
            return
    raise RegistryError(
        f"{tag} is rewritten by others all the time: {descriptor.digest} could not be attached",
        hint="try again when they are done",
    )


def _from_api(
    registry: Registry, repository: str, subject: Digest
) -> tuple[Descriptor, ...] | None:
    """Ask the API; None where the registry has none."""
    path = f"/v2/{repository}/referrers/{subject}"
    found: list[Descriptor] = []
    size = 0
    for answer in registry.pages(path, registry.scopes(repository), expect={200, *_UNAVAILABLE}):
        if answer.status != 200 or not _is_index(answer):
            return None
        size += len(answer.body)
        if size > _LARGEST:
            raise ManifestError(f"the list of referrers of {subject} is longer than 16 MiB")
        index = read_index(answer.body, OCI_INDEX, f"the referrers of {subject}")
        found += [
            entry.checked(f"the referrers of {subject}: manifests[{place}]")
            for place, entry in enumerate(index.manifests)
        ]
    return tuple(found)


def _is_index(answer: Answer) -> bool:
    # Registries that route every unknown path to a web page answer 200, with that page.
    return answer.headers.get("Content-Type", "").partition(";")[0].strip() == OCI_INDEX


def is_list(tag: str) -> bool:
    """Tell whether a tag stands for a list of referrers, by the "Referrers Tag Schema"."""
    return _FALLBACK.fullmatch(tag) is not None


def _tag(registry: Registry, repository: str, subject: Digest) -> Reference:
    return Reference(registry=registry.host, repository=repository, tag=f"sha256-{subject.hex}")


def _read(registry: Registry, tag: Reference) -> tuple[Descriptor, ...]:
    found = registry.find_manifest(tag)
    if found is None:
        return ()
    raw, descriptor = found
    document = parse(raw, descriptor.media_type, str(tag))
    if not isinstance(document, Index):
        raise ManifestError(
            f"{tag} should list what is attached to an image, and is an image itself",
            hint="remove that tag from the registry",
        )
    return document.manifests


def _index(entries: Iterable[Descriptor]) -> bytes:
    return canonical.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [entry.as_json() for entry in entries],
        }
    )
