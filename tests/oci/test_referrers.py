"""Lists of what refers to an image, from registries that are not to be trusted."""

import json

import pytest
from tests.integration import proxy as faults

from torchship.digest import Digest
from torchship.errors import ManifestError
from torchship.oci.mediatypes import OCI_INDEX
from torchship.oci.referrers import referrers
from torchship.oci.registry.client import Registry


def test_a_list_without_end_is_given_up(tmp_path, monkeypatch):
    """However many pages a registry has, no more than 16 MiB of them are held."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    subject = Digest.of(b"x")
    entry = {
        "mediaType": OCI_INDEX,
        "digest": str(subject),
        "size": 1,
        "annotations": {"a": "x" * (3 << 20)},
    }
    page = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()

    def endless(exchange):
        link = f"</v2/me/x/referrers/{subject}?page={len(server.seen)}>; rel=next"
        faults.answered(200, {"Content-Type": OCI_INDEX, "Link": link}, page)(exchange)

    with faults.running() as server:
        server.on("GET", "/referrers/", endless, times=50)
        with pytest.raises(ManifestError, match="longer than 16 MiB"):
            referrers(Registry(server.host), "me/x", subject)
        assert server.count("GET", "/referrers/") == 6
