"""A registry that lies, breaks the rules, or is merely unusual."""

import json

import pytest
from tests.integration import proxy as faults

from torchship.digest import Descriptor, Digest
from torchship.errors import RegistryError
from torchship.oci.mediatypes import OCI_MANIFEST
from torchship.oci.reference import Reference
from torchship.oci.registry.answer import LIMIT
from torchship.oci.registry.client import Registry
from torchship.oci.registry.patience import Patience

BLOB = b"0123456789" * 1000
DESCRIPTOR = Descriptor(media_type="x/y", digest=Digest.of(BLOB), size=len(BLOB))
MANIFEST = json.dumps(
    {"schemaVersion": 2, "config": DESCRIPTOR.as_json(), "layers": [], "mediaType": OCI_MANIFEST}
).encode()


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """Keep the user's own accounts out."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@pytest.fixture
def server():
    """Give an HTTP server that answers by rules, 404 where there is none."""
    with faults.running() as running:
        yield running


@pytest.fixture
def registry(server):
    """Give a client of it, with little patience."""
    return Registry(server.host, patience=Patience(attempts=3, first=0.01, silence=2.0))


@pytest.fixture
def name(server):
    """Give a reference."""
    return Reference.parse(f"{server.host}/me/x:v1")


def serve(server, body, method="GET", path="", status=200, times=1, **headers):
    """Answer the next request of a kind."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    server.on(method, path, faults.answered(status, fields, body), times=times)


# -- manifests


def test_a_manifest_comes_as_its_raw_bytes(server, registry, name):
    """What is hashed is what came, and both families of types are asked for."""
    serve(server, MANIFEST, Content_Type=OCI_MANIFEST)
    raw, descriptor = registry.manifest(name)
    assert raw == MANIFEST
    assert descriptor.digest == Digest.of(MANIFEST)
    assert (descriptor.size, descriptor.media_type) == (len(MANIFEST), OCI_MANIFEST)
    accept = server.seen[-1].headers["accept"]
    for part in ("oci.image.index", "oci.image.manifest", "manifest.list.v2", "manifest.v2"):
        assert part in accept


def test_a_manifest_by_digest_must_have_it(server, registry, name):
    """The reference's digest is checked, not the header that the registry sends with it."""
    other = Digest.of(b"other")
    serve(server, MANIFEST, times=-1, Docker_Content_Digest=str(other))
    assert registry.manifest(name.with_digest(Digest.of(MANIFEST)))[0] == MANIFEST
    with pytest.raises(RegistryError, match=str(other)):
        registry.manifest(name.with_digest(other))
    with pytest.raises(RegistryError, match=str(other)):
        registry.manifest(name)


@pytest.mark.parametrize("length", [LIMIT + 1, 40 << 20])
def test_a_huge_manifest_is_refused(server, registry, name, length):
    """Nobody is made to hold more than four mebibytes of a manifest."""
    serve(server, b" " * length)
    with pytest.raises(RegistryError, match="more than the"):
        registry.manifest(name)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[" * 99_999, b'{"schemaVersion":1}'])
def test_a_malformed_manifest_is_refused(server, registry, name, body):
    """The error names the reference."""
    serve(server, body, Content_Type=OCI_MANIFEST)
    with pytest.raises(RegistryError, match="me/x:v1"):
        registry.manifest(name)


# -- errors


def test_errors_carry_the_registrys_own_words_and_no_secrets(server, registry, name):
    """Code, message, request and status are kept; control characters and tokens are not."""
    said = {"errors": [{"code": "DENIED", "message": "no\x1b[2J Bearer abc.def for you"}]}
    serve(server, json.dumps(said).encode(), status=403)
    with pytest.raises(RegistryError) as caught:
        registry.manifest(name)
    fault = caught.value
    assert (fault.status, fault.code) == (403, "DENIED")
    assert fault.request == f"GET http://{server.host}/v2/me/x/manifests/v1"
    assert "\x1b" not in fault.message
    assert "abc.def" not in fault.message
    assert f"torchship login {server.host}" in fault.hint  # with its port


def test_a_registry_that_takes_no_pushes_says_so(server, registry, name):
    """Status 405 to a write is a registry that can only be read."""
    serve(server, b"", method="PUT", status=405)
    with pytest.raises(RegistryError) as caught:
        registry.put_manifest(name, MANIFEST, OCI_MANIFEST)
    assert "read-only or refuses pushes" in caught.value.hint
    serve(server, b"", status=405)
    with pytest.raises(RegistryError) as caught:
        registry.manifest(name)
    assert "read-only" not in caught.value.hint


@pytest.mark.parametrize("body", [b"", b"oops", b'{"errors":[]}', b'{"errors":3}', b"\xff"])
def test_errors_without_words_are_errors_all_the_same(server, registry, name, body):
    """An error page that is no error document is passed over."""
    serve(server, body, status=418)
    with pytest.raises(RegistryError, match="418"):
        registry.manifest(name)


def test_passing_faults_are_tried_again_but_not_for_ever(server, registry, name):
    """Three attempts, as this client's patience has it."""
    serve(server, b"", status=502, times=2)
    serve(server, MANIFEST)
    assert registry.manifest(name)[0] == MANIFEST
    server.seen.clear()
    serve(server, b"", status=502, times=-1)
    with pytest.raises(RegistryError) as caught:
        registry.manifest(name)
    assert caught.value.status == 502
    assert server.count("GET") == 3


@pytest.mark.parametrize("status", [400, 404, 501])
def test_lasting_faults_are_not_tried_again(server, registry, name, status):
    """Nothing is gained by asking twice."""
    serve(server, b"", status=status, times=-1)
    with pytest.raises(RegistryError):
        registry.manifest(name)
    assert server.count("GET") == 1


# -- blobs


def read(registry, descriptor=DESCRIPTOR):
    """Read a blob to its end."""
    return b"".join(registry.blob("me/x", descriptor))


def test_a_blob_is_resumed_even_where_ranges_are_ignored(server, registry):
    """After a cut, an answer from the first byte on is read up to where it stopped."""

    def cut(exchange):
        exchange.head(200, {"Content-Length": str(len(BLOB))})
        exchange.wfile.write(BLOB[:4000])
        exchange.wfile.flush()
        exchange.hang_up()

    server.on("GET", "/blobs/", cut)
    serve(server, BLOB)
    assert read(registry) == BLOB
    assert server.seen[-1].headers["range"] == "bytes=4000-"


def test_a_blob_is_resumed_by_range(server, registry):
    """A 206 gives the rest; one that begins elsewhere is refused."""

    def cut(exchange):
        exchange.head(200, {"Content-Length": str(len(BLOB))})
        exchange.wfile.write(BLOB[:4000])
        exchange.wfile.flush()
        exchange.hang_up()

    server.on("GET", "/blobs/", cut, times=2)
    end = f"{len(BLOB) - 1}/{len(BLOB)}"
    server.rules.insert(1, faults.Rule("GET", "", _part(4000, end), 1))
    server.rules[0].times = 1
    assert read(registry) == BLOB
    server.on("GET", "/blobs/", cut)
    server.on("GET", "/blobs/", _part(5000, end))
    with pytest.raises(RegistryError, match="another part"):
        read(registry)


def _part(begin, end):
    return faults.answered(206, {"Content-Range": f"bytes {begin}-{end}"}, BLOB[begin:])


@pytest.mark.parametrize("body", [BLOB + b"x", BLOB[:-1], b""])
def test_a_blob_of_another_size_is_refused_at_once(server, registry, body):
    """What the registry announces is compared before it is read."""
    serve(server, body, times=-1)
    with pytest.raises(RegistryError, match="size"):
        read(registry)
    assert server.count("GET", "/blobs/") == 1


def test_a_blob_without_end_is_stopped(server, registry):
    """Bytes beyond the stated size are not waited for."""

    def endless(exchange):
        exchange.head(200, {"Connection": "close"})
        exchange.close_connection = True
        while True:
            exchange.wfile.write(b"x" * 65536)

    server.on("GET", "/blobs/", endless)
    with pytest.raises(RegistryError, match="size"):
        read(registry)


def test_a_blob_that_is_not_there_is_the_registrys_own_error(server, registry):
    """The status and the address are told, as for any other request."""
    with pytest.raises(RegistryError) as caught:
        read(registry)
    assert caught.value.status == 404
    assert caught.value.request == f"GET http://{server.host}/v2/me/x/blobs/{DESCRIPTOR.digest}"


def test_a_blob_with_other_bytes_is_refused(server, registry):
    """Same size, other content: the digest tells."""
    serve(server, BLOB[:-1] + b"x")
    with pytest.raises(RegistryError, match=f"not {DESCRIPTOR.digest}"):
        read(registry)


# -- tags


def test_pages_of_tags_are_followed(server, registry):
    """Relative and absolute links, odd spellings, an empty page in between."""
    link = '</v2/me/x/tags/list?n=2&last=b>; rel="next"'
    serve(server, b'{"tags":["b","a"]}', path="n=1000", Link=link)
    absolute = f"<http://{server.host}/v2/me/x/tags/list?last=c>;rel=next"
    serve(server, b'{"tags":null}', path="last=b", Link=absolute)
    serve(server, b'{"tags":["c","a"]}', path="last=c")
    assert registry.tags("me/x") == ("a", "b", "c")


@pytest.mark.parametrize(
    "link",
    ["</v2/me/x/tags/list?n=1000>; rel=next", "<http://other.example/v2/>; rel=next"],
)
def test_pages_that_lead_nowhere_end(server, registry, link):
    """A circle, or a way to another host, is refused."""
    serve(server, b'{"tags":[]}', times=-1, Link=link)
    with pytest.raises(RegistryError, match="circle or astray"):
        registry.tags("me/x")


@pytest.mark.parametrize(
    "body", [b"[]", b'{"tags":[1]}', b'{"tags":["../x"]}', b'{"tags":["a\\n"]}']
)
def test_tags_that_are_none_are_refused(server, registry, body):
    """Nothing is printed that could not be a tag."""
    serve(server, body)
    with pytest.raises(RegistryError):
        registry.tags("me/x")


# -- uploads


def source(offset):
    """Give the blob's bytes from an offset on."""
    yield BLOB[offset:]


def test_an_upload_may_lead_to_another_host_but_not_the_password(server, tmp_path, monkeypatch):
    """Blobs are sent where the registry says; who we are is for the registry alone."""
    from torchship.oci.registry.token import Credentials

    ada = Credentials(username="ada", password="x")
    with faults.running() as storage:
        serve(server, b"", "POST", status=401, WWW_Authenticate="Basic realm=x")
        serve(server, b"", "POST", status=202, Location=f"http://{storage.host}/upload?key=1")
        storage.on("PUT", "", lambda e: [list(e.body()), faults.answered(201)(e)])
        Registry(server.host, credentials=lambda: ada).upload("me/x", DESCRIPTOR, source)
        assert server.seen[-1].headers["authorization"] == ada.basic
        put = storage.seen[-1]
        assert put.path == f"/upload?key=1&digest=sha256%3A{DESCRIPTOR.digest.hex}"
        assert "authorization" not in put.headers


def test_an_upload_without_an_address_is_an_error(server, registry):
    """A registry that does not say where cannot be sent anything."""
    serve(server, b"", "POST", status=202)
    with pytest.raises(RegistryError, match="did not say where"):
        registry.upload("me/x", DESCRIPTOR, source)


def test_a_refused_upload_is_not_repeated(server, registry):
    """A registry that finds the digest wrong is right, once."""
    serve(server, b"", "POST", status=202, Location="/u")
    said = b'{"errors":[{"code":"DIGEST_INVALID"}]}'
    server.on("PUT", "", lambda e: [list(e.body()), faults.answered(400, {}, said)(e)], times=-1)
    with pytest.raises(RegistryError) as caught:
        registry.upload("me/x", DESCRIPTOR, source)
    assert caught.value.code == "DIGEST_INVALID"
    assert server.count("PUT") == 1


def test_a_registry_that_always_forgets_the_upload_is_given_up(server, registry):
    """Beginning again is no progress."""
    serve(server, b"", "POST", status=202, Location="/u", times=-1)
    with pytest.raises(RegistryError):
        registry.upload("me/x", DESCRIPTOR, source)
    assert server.count("POST") == 3


def test_a_manifest_filed_under_another_digest_is_an_error(server, registry, name):
    """A registry that rewrites manifests breaks every pin."""
    serve(server, b"", "PUT", status=201, Docker_Content_Digest=str(DESCRIPTOR.digest))
    with pytest.raises(RegistryError, match="filed the manifest"):
        registry.put_manifest(name, MANIFEST, OCI_MANIFEST)
