"""Push and pull against a real registry, through a proxy that injects faults."""

import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from tests.integration import images, registry, tokens
from tests.integration import proxy as faults

from torchship import canonical
from torchship.digest import Descriptor, Digest
from torchship.errors import BlobMissing, ManifestError, RegistryError
from torchship.layers.layer import TITLE
from torchship.oci import auth, mediatypes
from torchship.oci.image import read_image
from torchship.oci.pull import pull
from torchship.oci.push import push
from torchship.oci.reference import Reference
from torchship.oci.referrers import attach, referrers
from torchship.oci.registry.client import Registry
from torchship.oci.registry.patience import Patience
from torchship.oci.registry.token import Credentials
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT

pytestmark = pytest.mark.engine

BIG = 3_000_000
AMD64 = Platform("linux", "amd64")


@pytest.fixture
def store(tmp_path):
    """Give a store to push from."""
    return Store.open(tmp_path / "store")


@pytest.fixture
def empty(tmp_path):
    """Give a store to pull into."""
    return Store.open(tmp_path / "empty")


_numbers = itertools.count()


@pytest.fixture
def name(proxy):
    """Give a reference that no other test uses."""
    return Reference.parse(f"{proxy.host}/test/image-{next(_numbers)}:v1")


@pytest.fixture
def pusher(proxy, patience):
    """Give a client that may push."""
    return Registry(proxy.host, access="pull,push", patience=patience)


def send(store, descriptor, name, pusher, **options):
    """Push quietly."""
    return push(store, descriptor, name, progress=SILENT, registry=pusher, **options)


def fetch(name, store, registry=None, platform=None):
    """Pull quietly."""
    return pull(name, store, platform=platform, progress=SILENT, registry=registry)


def contents(store, descriptor):
    """Return every blob of an image, read and hashed."""
    image = read_image(store, descriptor, AMD64)
    return [b"".join(store.read_verified(layer.descriptor)) for layer in image.layers]


# -- the plain way


def test_a_pushed_image_comes_back_byte_for_byte(store, empty, name, pusher):
    """What is pulled has the digests of what was pushed, and every blob of it."""
    made = images.image(store, [("a", BIG), ("b", 1000)])
    pushed = send(store, made, name, pusher)
    pulled = fetch(name, empty)
    assert pulled.descriptor.digest == made.digest == pushed.descriptor.digest
    assert contents(empty, made) == contents(store, made)
    assert empty.find(str(name)).digest == made.digest
    assert pulled.received == pushed.sent > BIG


def test_nothing_is_sent_twice(store, name, pusher, proxy):
    """A second push sends no blob, and a second pull fetches none."""
    made = images.image(store, [("a", BIG)])
    send(store, made, name, pusher)
    again = send(store, made, name, pusher)
    assert (again.sent, again.mounted) == (0, 0)
    assert again.skipped > BIG
    assert fetch(name, store).received == 0
    assert proxy.count("GET", "/blobs/") == 0


@pytest.mark.parametrize("status", [200, 403])
def test_what_a_name_stood_for_need_not_be_understood(store, name, pusher, proxy, status):
    """A manifest of another age, or one that may not be read, is replaced like any other."""
    made = images.image(store, [("a", 1000)])
    old = {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}
    proxy.on("GET", "/manifests/v1", faults.answered(status, old, b'{"schemaVersion": 1}'))
    send(store, made, name, pusher)
    assert pusher.manifest(name)[1].digest == made.digest


def test_after_an_edit_the_name_tells_what_is_there(store, name, pusher, proxy):
    """Of what the name's older image lacks, only a large blob is asked for before it is sent."""
    send(store, images.image(store, [("a", 1000), ("b", 2000), ("c", 30)]), name, pusher)
    before = proxy.count("HEAD", "/blobs/")
    edited = images.image(store, [("a", 1000), ("b", 2000), ("d", 30), ("e", BIG)])
    send(store, edited, name, pusher)
    assert proxy.count("HEAD", "/blobs/") - before == 1
    assert fetch(name, store).descriptor.digest == edited.digest


def test_a_blob_that_the_registry_lost_is_sent_again(store, empty, name, pusher, shared_registry):
    """A name whose blobs are gone is believed only until the registry refuses the manifest."""
    made = images.image(store, [("lost", 5000), ("b", 2000)])
    send(store, made, name, pusher)
    lost = read_image(store, made, AMD64).layers[0]
    shared_registry.blob_path(lost.digest).unlink()
    edited = images.image(store, [("lost", 5000), ("e", 2000)])
    again = send(store, edited, name, pusher)
    assert again.sent >= lost.size
    assert fetch(name, empty).descriptor.digest == edited.digest
    assert contents(empty, edited) == contents(store, edited)


def test_an_index_keeps_its_bytes_though_one_image_is_pulled(store, empty, name, pusher):
    """Pulling one platform leaves the index's digest as it was, and the others unfetched."""
    here, there = (
        images.image(store, [("x", 1000)]),
        images.image(store, [("y", 2000)], architecture="arm64"),
    )
    top = images.index(store, {"amd64": here, "arm64": there})
    send(store, top, name, pusher)
    assert fetch(name, empty, platform=AMD64).descriptor.digest == top.digest
    assert empty.has(here.digest)
    assert not empty.has(there.digest)
    assert fetch(name, empty).descriptor.digest == top.digest
    assert empty.has(there.digest)


def test_a_missing_platform_is_named_with_those_there_are(store, empty, name, pusher):
    """An index without the platform says what it holds, and nothing is tagged."""
    there = images.image(store, [("y", 2000)], architecture="arm64")
    send(store, images.index(store, {"arm64": there}), name, pusher)
    with pytest.raises(ManifestError, match="linux/amd64") as caught:
        fetch(name, empty, platform=AMD64)
    assert "linux/arm64" in caught.value.hint
    assert empty.images() == ()


def test_an_index_with_absent_images_is_pushed_where_they_are(store, empty, name, pusher):
    """A sparse index can go back to where it came from, and nowhere else."""
    here = images.image(store, [("x", 1000)])
    there = images.image(store, [("y", 2000)], architecture="arm64")
    top = images.index(store, {"amd64": here, "arm64": there})
    send(store, top, name, pusher)
    fetch(name, empty, platform=AMD64)
    assert send(empty, top, name.with_tag("v2"), pusher).sent == 0
    with pytest.raises(BlobMissing, match=str(there.digest)):
        send(empty, top, Reference.parse(f"{name.registry}/test/elsewhere:v1"), pusher)


def test_layers_that_only_the_registry_has_need_not_be_local(store, empty, name, pusher):
    """A manifest made of published layers is pushed without having them."""
    made = images.image(store, [("a", BIG)])
    send(store, made, name, pusher)
    image = read_image(store, made, AMD64)
    empty.put(image.raw_config, image.config.media_type)
    empty.put(image.raw_manifest, made.media_type)
    assert send(empty, made, name.with_tag("again"), pusher).sent == 0


def test_a_published_image_is_read_without_pulling_it(store, name, pusher, proxy):
    """Layers, diff_ids and command come from manifest and config alone."""
    made = images.image(store, [("a", BIG)])
    send(store, made, name, pusher)
    before = len(proxy.seen)
    image = read_image(Registry(proxy.host).source(name.repository), made, AMD64)
    assert image.layers == read_image(store, made, AMD64).layers
    assert image.command == ("true",)
    assert len(proxy.seen) - before == 2


@pytest.mark.parametrize("tag", ["_", "A-b.c_D", "x" * 128, "latest", "0"])
def test_odd_tags_are_tags(store, empty, name, pusher, tag):
    """Whatever the grammar allows can be pushed, listed and pulled."""
    made = images.image(store, [("a", 100)])
    odd = name.with_tag(tag)
    send(store, made, odd, pusher)
    assert tag in pusher.tags(name.repository)
    assert fetch(odd, empty).descriptor.digest == made.digest


def test_an_unknown_image_is_a_clear_error(name, empty):
    """A name that the registry does not know says so, with the registry's own code."""
    with pytest.raises(RegistryError) as caught:
        fetch(name, empty)
    assert caught.value.status == 404
    assert caught.value.code == "MANIFEST_UNKNOWN"
    assert caught.value.request == f"GET http://{name.registry}/v2/{name.repository}/manifests/v1"


# -- mounting


def test_a_push_next_door_mounts(store, name, pusher, proxy):
    """Blobs of another repository of the registry are mounted, not sent."""
    made = images.image(store, [("a", BIG)])
    send(store, made, name, pusher)
    other = Reference.parse(f"{name.registry}/test/next-door:v1")
    proxy.seen.clear()
    result = send(store, made, other, pusher)
    assert (result.sent, result.skipped) == (0, 0)
    assert result.mounted > BIG
    assert proxy.count("PUT|PATCH", "/blobs/") == 0


def test_what_is_in_no_other_repository_is_not_looked_for_there(store, name, pusher, proxy):
    """After an edit, only what is old is mounted: the new layer is sent at once."""
    old = images.image(store, [("a", BIG)])
    store.tag(_other(name), old)
    send(store, old, _other(name), pusher)
    made = images.image(store, [("a", BIG), ("b", 5000)])
    proxy.seen.clear()
    result = send(store, made, name, pusher)
    assert result.mounted > BIG
    assert 5000 < result.sent < BIG
    assert proxy.count("POST", "mount=") == 1


@pytest.mark.parametrize("status", [202, 400, 401, 403, 404, 405])
def test_a_refused_mount_becomes_an_upload(store, empty, name, pusher, proxy, status):
    """Where a mount is refused, with from and without, the blob is sent."""
    made = images.image(store, [("a", 5000)])
    upload = {"Location": f"/v2/{name.repository}/blobs/uploads/nowhere"} if status == 202 else {}
    proxy.on("POST", r"mount=", faults.answered(status, upload), times=-1)
    store.origins.add(made.digest, [name.with_tag("x"), _other(name)])
    result = send(store, made, name, pusher)
    assert result.mounted == 0
    assert fetch(name, empty).received == result.sent


def test_a_mount_without_from_is_tried_after_a_refusal(store, name, pusher, proxy):
    """A registry that may not read the other repository may know the blob all the same."""
    made = images.image(store, [("a", 5000)])
    send(store, made, _other(name), pusher)
    proxy.on("POST", r"from=", faults.answered(401), times=-1)
    proxy.on("POST", r"mount=[^&]*$", faults.answered(201), times=-1)
    proxy.on("PUT", "/manifests/", faults.answered(201))
    assert send(store, made, name, pusher).mounted > 5000


def _other(name):
    return Reference.parse(f"{name.registry}/{name.repository}-origin:v1")


# -- cuts


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
@pytest.mark.parametrize("fault", [faults.hung_up, faults.lost_answer], ids=["before", "after"])
def test_a_push_survives_a_cut_at_each_stage(store, empty, name, pusher, proxy, method, fault):
    """A connection cut before or after the registry acted costs a retry, nothing else."""
    made = images.image(store, [("a", 50_000)])
    proxy.on(method, "", fault, times=2)
    send(store, made, name, pusher)
    assert proxy.fired == 2
    assert contents(empty, fetch(name, empty).descriptor) == contents(store, made)


@pytest.mark.parametrize("path", ["/manifests/", "/blobs/"])
@pytest.mark.parametrize("after", [0, 100])
def test_a_pull_survives_a_cut_at_each_stage(store, empty, name, pusher, proxy, path, after):
    """An answer that is cut off is asked for again."""
    made = images.image(store, [("a", 50_000)])
    send(store, made, name, pusher)
    proxy.on("GET", path, faults.cut_answer(after) if after else faults.hung_up, times=2)
    fetch(name, empty, Registry(proxy.host, patience=pusher.session.transport.patience))
    assert proxy.fired == 2
    assert contents(empty, made) == contents(store, made)


def test_a_cut_download_goes_on_where_it_stopped(store, empty, name, pusher, proxy, patience):
    """More cuts than there are attempts do not matter while each brings something."""
    made = images.image(store, [("a", BIG)])
    send(store, made, name, pusher)
    proxy.seen.clear()
    proxy.on("GET", "/blobs/", faults.cut_answer(200_000), times=8)
    fetch(name, empty, Registry(proxy.host, patience=patience))
    assert contents(empty, made) == contents(store, made)
    ranges = [one.headers["range"] for one in proxy.seen if "range" in one.headers]
    starts = [int(text.removeprefix("bytes=").rstrip("-")) for text in ranges]
    assert starts == sorted(starts)
    assert starts[-1] > 5 * 200_000


def test_a_cut_upload_goes_on_where_it_stopped(store, empty, name, pusher, proxy):
    """After a cut, only what the registry lacks is sent, by PATCH from its own offset."""
    made = images.image(store, [("a", BIG)])
    layer = read_image(store, made, AMD64).layers[0]
    proxy.on("PUT", layer.digest.hex, faults.cut_resumably(1_000_000))
    proxy.on("PATCH", "/blobs/", faults.cut_resumably(300_000), times=5)
    send(store, made, name, pusher)
    assert contents(empty, fetch(name, empty).descriptor) == contents(store, made)
    starts = [
        int(one.headers["content-range"].partition("-")[0])
        for one in proxy.seen
        if one.method == "PATCH"
    ]
    assert starts == [1_000_000 + 300_000 * number for number in range(6)]


def test_an_upload_whose_session_is_lost_begins_again(store, empty, name, pusher, proxy):
    """A registry that forgot the upload, as this one does, is sent the blob from its start."""
    made = images.image(store, [("a", BIG)])
    layer = read_image(store, made, AMD64).layers[0]
    proxy.on("PUT", layer.digest.hex, faults.cut_request(1_000_000))
    send(store, made, name, pusher)
    assert contents(empty, fetch(name, empty).descriptor) == contents(store, made)


def test_a_commit_that_timed_out_is_not_sent_again(store, name, proxy):
    """The blob is asked for first: the registry has had it all along."""
    made = images.image(store, [("a", BIG)])
    hasty = Registry(
        proxy.host, access="pull,push", patience=Patience(attempts=3, first=0.01, silence=0.7)
    )
    layer = read_image(store, made, AMD64).layers[0]
    proxy.on("PUT", f"digest=sha256%3A{layer.digest.hex}", faults.silent(3.0))
    send(store, made, name, hasty)
    assert proxy.fired == 1
    assert proxy.count("PUT", f"digest=sha256%3A{layer.digest.hex}") == 1
    assert proxy.count("PATCH") == 0


def test_a_proxy_that_limits_requests_gets_pieces(store, empty, name, pusher, proxy, monkeypatch):
    """After a 413, the blob is sent in pieces below the limit."""
    monkeypatch.setattr("torchship.oci.registry.upload._CHUNK", 1_000_000)
    made = images.image(store, [("a", BIG)])
    layer = read_image(store, made, AMD64).layers[0]
    proxy.on("PUT", layer.digest.hex, faults.refused_midway(100_000, 413))
    send(store, made, name, pusher)
    assert contents(empty, fetch(name, empty).descriptor) == contents(store, made)
    assert proxy.count("PATCH") == 4


def test_patience_ends(store, name, pusher, proxy):
    """A registry that always cuts is given up, with the request in the error."""
    made = images.image(store, [("a", 1000)])
    proxy.on(".*", "", faults.hung_up, times=-1)
    with pytest.raises(RegistryError) as caught:
        send(store, made, name, pusher)
    assert caught.value.status is None


# -- Retry-After


def _soon(seconds):
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("wait", [lambda: "1", lambda: _soon(2)], ids=["seconds", "date"])
def test_retry_after_is_honoured(store, name, pusher, proxy, status, wait):
    """The client comes back no earlier than it was told to."""
    made = images.image(store, [("a", 100)])
    proxy.on("PUT", "/manifests/", faults.answered(status, {"Retry-After": wait()}))
    began = time.monotonic()
    send(store, made, name, pusher)
    assert time.monotonic() - began >= 0.9


def test_a_wait_beyond_patience_is_told(store, name, pusher, proxy):
    """Nobody waits an hour without being asked: the error says how long."""
    made = images.image(store, [("a", 100)])
    limit = {"errors": [{"code": "TOOMANYREQUESTS", "message": "pull rate"}]}
    proxy.on(
        "HEAD|GET", "", faults.answered(429, {"Retry-After": "3600"}, json.dumps(limit).encode())
    )
    with pytest.raises(RegistryError, match="3600 seconds"):
        send(store, made, name, pusher)


# -- lies


def test_a_damaged_blob_is_refused(store, empty, name, pusher, proxy):
    """A blob with another digest never enters the store, and nothing is tagged."""
    made = images.image(store, [("a", 5000)])
    send(store, made, name, pusher)
    proxy.on("GET", "/blobs/", faults.changed(lambda body: body[:-1] + b"?"), times=-1)
    with pytest.raises(RegistryError, match="is not sha256:"):
        fetch(name, empty)
    assert empty.images() == ()
    assert not any(
        empty.blobs.path(d).exists() for d in (read_image(store, made, AMD64).config.digest,)
    )


def test_a_truncated_blob_is_refused(store, empty, name, pusher, shared_registry):
    """A registry whose own copy is short is not believed, nor asked again and again."""
    made = images.image(store, [("truncated", 5000)])
    send(store, made, name, pusher)
    path = shared_registry.blob_path(read_image(store, made, AMD64).layers[0].digest)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RegistryError):
        fetch(name, empty)
    assert empty.images() == ()


@pytest.mark.parametrize("change", [lambda b: b + b"x" * 5000, lambda b: b[:-10]])
def test_a_blob_of_another_size_is_refused(store, empty, name, pusher, proxy, change):
    """Neither more nor fewer bytes than the manifest says are taken."""
    made = images.image(store, [("a", 5000)])
    send(store, made, name, pusher)
    proxy.on("GET", "/blobs/", faults.changed(change), times=-1)
    with pytest.raises(RegistryError, match="size"):
        fetch(name, empty)


def test_a_changed_manifest_is_refused(store, empty, name, pusher, proxy):
    """Its digest is computed, not believed."""
    send(store, images.image(store, [("a", 100)]), name, pusher)
    proxy.on("GET", "/manifests/", faults.changed(lambda body: body + b"\n"))
    with pytest.raises(RegistryError, match="digest"):
        fetch(name, empty)


def test_a_failed_pull_leaves_the_old_name(store, empty, name, pusher, proxy):
    """The name means what it meant before, until all of the new image is there."""
    old = images.image(store, [("a", 100)])
    send(store, old, name, pusher)
    fetch(name, empty)
    send(store, images.image(store, [("b", 5000)]), name, pusher)
    proxy.on("GET", "/blobs/", faults.changed(lambda body: body[:-1] + b"?"), times=-1)
    with pytest.raises(RegistryError):
        fetch(name, empty)
    assert empty.find(str(name)).digest == old.digest


def test_a_redirect_elsewhere_carries_no_credentials(store, empty, tmp_path, patience):
    """Blobs may come from another host; passwords never go there."""
    made = images.image(store, [("a", 5000)])
    with (
        registry.running(tmp_path / "r", htpasswd=True) as real,
        faults.running(real.host) as front,
        faults.running(real.host) as elsewhere,
    ):
        account = Credentials(username=registry.USER, password=registry.PASSWORD)
        client = Registry(
            front.host, access="pull,push", credentials=lambda: account, patience=patience
        )
        name = Reference.parse(f"{front.host}/me/image:v1")
        send(store, made, name, client)
        blobs = {
            f"/v2/me/image/blobs/{blob.digest}": b"".join(store.read_verified(blob))
            for blob in (
                read_image(store, made, AMD64).config,
                read_image(store, made, AMD64).layers[0].descriptor,
            )
        }

        def away(exchange):
            where = f"http://{elsewhere.host}{exchange.path}?signature=hidden"
            faults.answered(307, {"Location": where})(exchange)

        def serve(exchange):
            faults.answered(200, {}, blobs[exchange.path.partition("?")[0]])(exchange)

        front.on("GET", "/blobs/", away, times=-1)
        elsewhere.on("GET", "/blobs/", serve, times=-1)
        fetch(name, empty, client)
        assert contents(empty, made) == contents(store, made)
        assert elsewhere.count("GET", "/blobs/") == 2
        assert all("authorization" not in one.headers for one in elsewhere.seen)
        assert any("authorization" in one.headers for one in front.seen)


# -- accounts


def test_htpasswd_and_login(store, empty, tmp_path, docker_config):
    """A login is checked, kept, used, and forgotten; a wrong one is refused and not kept."""
    made = images.image(store, [("a", 5000)])
    with registry.running(tmp_path / "r", htpasswd=True) as real:
        name = Reference.parse(f"{real.host}/me/image:v1")
        with pytest.raises(RegistryError, match="login") as caught:
            push(store, made, name, progress=SILENT)
        assert f"torchship login {real.host}" in caught.value.hint
        with pytest.raises(RegistryError) as caught:
            auth.login(real.host, registry.USER, "xyzzy")
        assert "wrong user name or password" in caught.value.message
        assert "xyzzy" not in f"{caught.value} {caught.value.hint}"
        assert not docker_config.exists()
        auth.login(real.host, registry.USER, registry.PASSWORD)
        push(store, made, name, progress=SILENT)
        assert fetch(name, empty).descriptor.digest == made.digest
        assert auth.logout(real.host)
        with pytest.raises(RegistryError, match="login"):
            Registry(real.host).tags("me/image")


def test_tls_with_a_private_ca(store, empty, tmp_path, monkeypatch, docker_config):
    """A private CA is trusted from certs.d or SSL_CERT_FILE, and otherwise named as missing."""
    made = images.image(store, [("a", 5000)])
    certificates = registry.private_ca(tmp_path / "ca")
    with registry.running(tmp_path / "r", certificates=certificates) as real:
        name = Reference.parse(f"{real.host}/me/image:v1")
        with pytest.raises(RegistryError, match="certificate") as caught:
            push(store, made, name, progress=SILENT)
        assert "SSL_CERT_FILE" in caught.value.hint
        folder = docker_config.parent / "certs.d" / real.host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(certificates.ca.read_bytes())
        push(store, made, name, progress=SILENT)
        (folder / "ca.crt").unlink()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
        assert fetch(name, empty).descriptor.digest == made.digest


@pytest.fixture
def guarded(tmp_path, patience):
    """Give a registry with token authentication, its token service, and a proxy before it."""
    with (
        tokens.running(tmp_path / "tokens") as service,
        registry.running(tmp_path / "guarded", token=service.auth) as real,
        faults.running(real.host) as front,
    ):
        yield service, front


ADA = Credentials(username=registry.USER, password=registry.PASSWORD)


def client_of(front, patience, account=ADA, access="pull,push"):
    """Give a client with an account."""
    return Registry(front.host, access=access, credentials=lambda: account, patience=patience)


def test_storage_that_asks_for_a_login_gets_none(store, empty, guarded, patience):
    """It may name a token service of its own: the password is for the registry's."""
    service, front = guarded
    made = images.image(store, [("a", 5000)])
    name = Reference.parse(f"{front.host}/me/image:v1")
    client = client_of(front, patience)
    send(store, made, name, client)
    asked = len(service.asked)
    with faults.running() as storage, faults.running() as thief:
        realm = f'Bearer realm="http://{thief.host}/token",service="x"'
        away = {"Location": f"http://{storage.host}/blob?signature=hidden"}
        front.on("GET", "/blobs/", faults.answered(307, away), times=2)
        storage.on("GET", "", faults.answered(401, {"WWW-Authenticate": realm}), times=-1)
        for _ in range(2):
            with pytest.raises(RegistryError, match=storage.host) as caught:
                b"".join(client.blob("me/image", read_image(store, made, AMD64).config))
            assert "hidden" not in f"{caught.value} {caught.value.hint}"
        assert thief.seen == []
        assert all("authorization" not in one.headers for one in storage.seen)
        fetch(name, empty, client)  # the registry's own challenge still counts
    assert len(service.asked) == asked


def test_tokens_by_password_and_by_identity(store, empty, guarded, patience):
    """Both ways to a token work; anonymous ones may pull, and cannot push."""
    service, front = guarded
    name = Reference.parse(f"{front.host}/me/image:v1")
    made = images.image(store, [("a", 5000), ("b", 100)])
    send(store, made, name, client_of(front, patience))
    assert len(service.asked) == 1, "one token does for a whole push"
    assert service.asked[0]["scope"] == ["repository:me/image:pull,push"]
    holder = Credentials(username="<token>", identity_token=tokens.IDENTITY)
    send(store, made, name.with_tag("v2"), client_of(front, patience, holder))
    assert service.asked[-1]["grant_type"] == ["refresh_token"]
    assert fetch(name, empty, client_of(front, patience, None, "pull")).received > 5000
    other = Reference.parse(f"{front.host}/me/other:v1")
    with pytest.raises(RegistryError) as caught:
        send(store, made, other, client_of(front, patience, None))
    assert caught.value.status in (401, 403)


def test_an_expired_token_is_renewed_before_it_is_refused(store, guarded, patience):
    """A token whose time is over is not shown again."""
    service, front = guarded
    service.lifetime = 0
    send(
        store,
        images.image(store, [("a", 5000)]),
        Reference.parse(f"{front.host}/me/image:v1"),
        client_of(front, patience),
    )
    assert len(service.asked) > 3
    assert front.count("PUT") == 3


def test_a_401_in_mid_upload_goes_on_with_a_new_token(store, empty, guarded, patience):
    """The upload is taken up from the registry's offset, with another token."""
    service, front = guarded
    name = Reference.parse(f"{front.host}/me/image:v1")
    made = images.image(store, [("a", BIG)])
    challenge = f'Bearer realm="{service.auth.realm}",service="{tokens.SERVICE}"'
    layer = read_image(store, made, AMD64).layers[0]
    refusal = faults.refused_resumably(1_000_000, 401, {"WWW-Authenticate": challenge})
    front.on("PUT", layer.digest.hex, refusal)
    send(store, made, name, client_of(front, patience))
    assert front.fired == 1
    rests = [one.headers["content-range"] for one in front.seen if one.method == "PATCH"]
    assert rests == [f"1000000-{layer.size - 1}"]
    assert len(service.asked) == 2
    used = {one.headers.get("authorization") for one in front.seen} - {None}
    assert len(used) == 2
    assert fetch(name, empty, client_of(front, patience)).descriptor.digest == made.digest
    assert contents(empty, made) == contents(store, made)


def test_mounting_asks_for_the_right_to_read_the_origin(store, guarded, patience):
    """The token of a mount is for both repositories; one that may not be read is not fatal."""
    service, front = guarded
    made = images.image(store, [("a", 5000)])
    origin = Reference.parse(f"{front.host}/me/origin:v1")
    client = client_of(front, patience)
    send(store, made, origin, client)
    copy = Reference.parse(f"{front.host}/me/copy:v1")
    result = send(store, made, copy, client)
    assert result.mounted > 5000
    assert ["repository:me/copy:pull,push", "repository:me/origin:pull"] in [
        asked["scope"] for asked in service.asked
    ]
    secret = Reference.parse(f"{front.host}/secret/origin:v1")
    again = Reference.parse(f"{front.host}/me/third:v1")
    fresh = images.image(store, [("b", 5000)])
    store.origins.add(fresh.digest, [secret])
    assert send(store, fresh, again, client).sent > 5000


# -- referrers


def _record(store, subject, text):
    empty = store.put(b"{}", "application/vnd.oci.empty.v1+json")
    layer = store.put(text.encode(), "application/vnd.in-toto+json")
    raw = canonical.encode(
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "artifactType": "application/test",
            "config": empty.as_json(),
            "layers": [layer.as_json()],
            "subject": subject.as_json(),
        }
    )
    descriptor = store.put(raw, mediatypes.OCI_MANIFEST)
    return (
        raw,
        Descriptor(
            media_type=descriptor.media_type,
            digest=descriptor.digest,
            size=descriptor.size,
            artifact_type="application/test",
        ),
        (empty, layer),
    )


def _attach(store, pusher, name, made, text):
    raw, descriptor, blobs = _record(store, made, text)
    for blob in blobs:
        if not pusher.has_blob(name.repository, blob):
            pusher.upload(name.repository, blob, lambda at, b=blob: iter([store.read(b)[at:]]))
    attach(pusher, name.repository, raw, descriptor, made.digest)
    return descriptor


def test_referrers_without_an_api_live_under_a_tag(store, name, pusher):
    """Without a referrers API, the tag sha256-<hex> lists them, each once."""
    made = images.image(store, [("a", 100)])
    send(store, made, name, pusher)
    assert referrers(pusher, name.repository, made.digest) == ()
    first = _attach(store, pusher, name, made, "one")
    second = _attach(store, pusher, name, made, "two")
    _attach(store, pusher, name, made, "two")
    found = referrers(pusher, name.repository, made.digest, "application/test")
    assert [entry.digest for entry in found] == [first.digest, second.digest]
    assert referrers(pusher, name.repository, made.digest, "application/other") == ()
    assert f"sha256-{made.digest.hex}" in pusher.tags(name.repository)


def test_referrers_by_the_api_need_no_tag(store, name, pusher, proxy):
    """Where the registry says OCI-Subject, no tag is written, and its pages are followed."""
    made = images.image(store, [("a", 100)])
    send(store, made, name, pusher)
    _, descriptor, _ = _record(store, made, "one")
    page = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX}
    kind = {"Content-Type": mediatypes.OCI_INDEX}
    path = f"/v2/{name.repository}/referrers/{made.digest}"
    first = canonical.encode({**page, "manifests": [descriptor.as_json()]})
    other = Descriptor(media_type=mediatypes.OCI_MANIFEST, digest=Digest("0" * 64), size=3)
    second = canonical.encode({**page, "manifests": [other.as_json()]})
    link = {"Link": f'<{path}?next=2>; rel="next"'}
    proxy.on("GET", r"referrers/[^?]*$", faults.answered(200, kind | link, first))
    proxy.on("GET", r"next=2", faults.answered(200, kind, second))
    proxy.on("PUT", "/manifests/", faults.answered(201, {"OCI-Subject": str(made.digest)}))
    _attach(store, pusher, name, made, "one")
    found = referrers(pusher, name.repository, made.digest)
    assert [entry.digest for entry in found] == [descriptor.digest, other.digest]
    assert pusher.tags(name.repository) == ("v1",)


def test_writers_of_one_tag_do_not_lose_each_others_referrers(store, name, pusher):
    """Several that attach at once all end up in the list."""
    made = images.image(store, [("a", 100)])
    send(store, made, name, pusher)
    threads = [
        threading.Thread(target=_attach, args=(store, pusher, name, made, f"record {number}"))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(referrers(pusher, name.repository, made.digest)) == 4


# -- kills


_TRANSFER = """
import sys
from pathlib import Path
from torchship.oci.pull import pull
from torchship.oci.push import push
from torchship.oci.reference import Reference
from torchship.oci.store import Store
from torchship.progress import SILENT
verb, name, home = sys.argv[1:]
store, name = Store.open(Path(home)), Reference.parse(name)
print("ready", flush=True)
if verb == "pull":
    pull(name, store, platform=None, progress=SILENT)
else:
    push(store, store.find(sys.argv[2]), name, progress=SILENT)
"""


def _killed(verb, name, home, seconds):
    """Start a transfer, kill it after a while; return whether that came in time."""
    process = subprocess.Popen(
        [sys.executable, "-c", _TRANSFER, verb, str(name), str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    return process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("rounds", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_pull_loses_nothing(store, tmp_path, name, pusher, rounds):
    """Whenever a pull is killed, the store stays sound, and the next pull succeeds."""
    made = images.image(store, [("a", 20_000_000), ("b", 5_000_000), ("c", 1000)])
    send(store, made, name, pusher)
    hits = 0
    for round_ in range(rounds):
        home = tmp_path / f"victim-{round_}"
        hits += _killed("pull", name, home, 0.25 * (round_ + 0.5) / rounds)
        victim = Store.open(home)
        for digest in victim.blobs:
            assert Digest.of_file(victim.blobs.path(digest)) == digest
        if victim.images():
            assert contents(victim, made)
        fetch(name, victim)
        assert contents(victim, made) == contents(store, made)
    assert hits


@pytest.mark.parametrize("rounds", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_push_leaves_no_half_image(store, empty, name, pusher, rounds):
    """The name appears with all it needs, or not at all; the next push succeeds."""
    hits = 0
    for round_ in range(rounds):
        made = images.image(store, [(f"a{round_}", 10_000_000), (f"b{round_}", 1000)])
        target = name.with_tag(f"v{round_}")
        store.tag(target, made)
        hits += _killed("push", target, store.home, 0.3 * (round_ + 0.5) / rounds)
        if pusher.find_manifest(target) is not None:
            fetch(target, empty)
        send(store, made, target, pusher)
        assert contents(empty, fetch(target, empty).descriptor) == contents(store, made)
    assert hits


def stalled(after):
    """Give a part of the answer, and then nothing until the client is gone."""

    def act(exchange):
        upstream = exchange.upstream().getresponse()
        exchange.head(upstream.status, dict(upstream.getheaders()))
        exchange.wfile.write(upstream.read(after))
        exchange.wfile.flush()
        exchange.connection.settimeout(30)
        exchange.rfile.read(1)
        exchange.hang_up()

    return act


def _until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_pull_is_gone_on_with(store, empty, name, pusher, proxy):
    """The next one asks for the rest of the blob, and verifies all of it."""
    made = images.image(store, [("a", 5 * BIG)])
    send(store, made, name, pusher)
    proxy.on("GET", f"/blobs/{read_image(store, made, AMD64).layers[0].digest}", stalled(4 * BIG))
    process = subprocess.Popen(
        [sys.executable, "-c", _TRANSFER, "pull", str(name), str(empty.home)],
        stdout=subprocess.DEVNULL,
    )
    _until(lambda: sum(path.stat().st_size for path in empty.partial.glob("*")) > 3 * BIG)
    process.kill()
    process.wait()
    proxy.seen.clear()
    pulled = fetch(name, empty)
    ranges = [one.headers.get("range", "") for one in proxy.seen if "/blobs/" in one.path]
    (begun,) = [int(text.removeprefix("bytes=").rstrip("-")) for text in ranges if text]
    assert begun > 3 * BIG
    assert pulled.received < 2 * BIG + 10_000
    assert contents(empty, made) == contents(store, made)
    assert not list(empty.partial.iterdir())


def test_a_terminal_shows_what_comes_and_how_fast(store, name, pusher, proxy, tmp_path):
    """Each layer by its title, with the bytes that are there and their speed."""
    made = images.image(store, [("a", 5 * BIG)])
    document = json.loads(store.read(made))
    document["layers"][0]["annotations"] = {TITLE: "torch 9.9"}
    made = store.put(canonical.encode(document), made.media_type)
    send(store, made, name, pusher)
    proxy.on("GET", f"/blobs/{read_image(store, made, AMD64).layers[0].digest}", stalled(4 * BIG))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "torchship", "pull", "--platform=linux/amd64", str(name)],
        env={**os.environ, "TORCHSHIP_HOME": str(tmp_path / "shown"), "COLUMNS": "120"},
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = ""
    deadline = time.monotonic() + 20
    try:
        while not re.search(r"pulling torch 9\.9.* [0-9.]+/[0-9.]+ MB .*[0-9.]+ [kM]B/s", shown):
            assert time.monotonic() < deadline, shown[-500:]
            shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(ours, 65536).decode())
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_what_a_power_cut_spoiled_is_fetched_anew(store, empty, name, pusher):
    """The length of a file may survive without its bytes: the digest tells, and all is well."""
    made = images.image(store, [("a", BIG)])
    send(store, made, name, pusher)
    layer = read_image(store, made, AMD64).layers[0]
    with empty.resume(layer.digest, lambda: None) as writer:
        writer.write(bytes(BIG // 2))
    assert fetch(name, empty).received > BIG + BIG // 2
    assert contents(empty, made) == contents(store, made)


def test_two_pulls_at_once(store, empty, name, pusher, proxy):
    """Two pulls into one store end with one sound image, and fetch each blob once."""
    made = images.image(store, [("a", 20 * BIG), ("b", 5000)])
    send(store, made, name, pusher)
    processes = [
        subprocess.Popen([sys.executable, "-c", _TRANSFER, "pull", str(name), str(empty.home)])
        for _ in range(2)
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert contents(empty, made) == contents(store, made)
    layer = read_image(store, made, AMD64).layers[0]
    assert proxy.count("GET", f"/blobs/{layer.digest}") == 1


def test_a_pull_that_waits_takes_over_from_one_that_is_killed(store, empty, name, pusher, proxy):
    """What the first brought is not lost, and nobody waits for the dead."""
    made = images.image(store, [("a", 5 * BIG)])
    send(store, made, name, pusher)
    proxy.on("GET", f"/blobs/{read_image(store, made, AMD64).layers[0].digest}", stalled(4 * BIG))
    command = [sys.executable, "-c", _TRANSFER, "pull", str(name), str(empty.home)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _until(lambda: sum(path.stat().st_size for path in empty.partial.glob("*")) > 3 * BIG)
    second = subprocess.Popen(command, stdout=subprocess.PIPE)
    second.stdout.readline()
    time.sleep(0.3)
    first.kill()
    first.wait()
    assert second.wait(30) == 0
    second.stdout.close()
    assert contents(empty, made) == contents(store, made)


# -- other tools


def test_skopeo_reads_what_we_push_and_we_read_what_it_pushes(store, empty, name, pusher, tmp_path):
    """Images go both ways between torchship and skopeo, in OCI's and in Docker's format."""
    registry.require("skopeo")
    made = images.image(store, [("a", 5000)])
    send(store, made, name, pusher)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def skopeo(*words):
        done = subprocess.run(
            ["skopeo", "--insecure-policy", *words], capture_output=True, env=environment
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    seen = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}"))
    assert seen["Digest"] == str(made.digest)
    for form in ("oci", "v2s2"):
        skopeo(
            "copy",
            "--format",
            form,
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            f"docker://{name}",
            f"docker://{name.with_tag(form)}",
        )
        pulled = fetch(name.with_tag(form), empty).descriptor
        assert (
            pulled.media_type
            == {"oci": mediatypes.OCI_MANIFEST, "v2s2": mediatypes.DOCKER_MANIFEST}[form]
        )
        assert contents(empty, pulled) == contents(store, made)
