"""A registry that leads elsewhere: what is told there, and whom its questions come from."""

import pytest
from tests.integration import proxy as faults

from torchship.digest import Descriptor, Digest
from torchship.errors import RegistryError
from torchship.oci.registry.client import Registry
from torchship.oci.registry.patience import Patience
from torchship.oci.registry.token import Credentials
from torchship.oci.registry.transport import INSECURE

ADA = Credentials(username="ada", password="open sesame")
BLOB = b"0123456789" * 1000
DESCRIPTOR = Descriptor(media_type="x/y", digest=Digest.of(BLOB), size=len(BLOB))


@pytest.fixture(autouse=True)
def nobody(monkeypatch):
    """Keep the user's own proxies out."""
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY", INSECURE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    """Give a registry that answers by rules, 404 where there is none."""
    with faults.running() as running:
        yield running


@pytest.fixture
def storage():
    """Give another host, to which the registry leads."""
    with faults.running() as running:
        yield running


@pytest.fixture
def thief():
    """Give a token service that nobody but the storage names."""
    with faults.running() as running:
        yield running


def client(host):
    """Give a client with an account, and with little patience."""
    return Registry(
        host,
        access="pull,push",
        credentials=lambda: ADA,
        patience=Patience(attempts=2, first=0.01, silence=2.0),
    )


def source(offset):
    """Give the blob's bytes from an offset on."""
    yield BLOB[offset:]


def lead(server, host, path="", times=1):
    """Let a server lead to the same path of another."""

    def away(exchange):
        faults.answered(307, {"Location": f"http://{host}{exchange.path}"})(exchange)

    server.on("GET|HEAD", path, away, times=times)


def ask(server, host, times=1):
    """Let a server ask who is there, on behalf of another's token service."""
    realm = f'Bearer realm="http://{host}/token",service="x"'
    server.on("GET|HEAD|PUT", "", faults.answered(401, {"WWW-Authenticate": realm}), times=times)


@pytest.mark.parametrize("guarded", [False, True], ids=["anonymous", "after a login"])
def test_a_question_from_where_a_redirect_leads_is_not_answered(server, storage, thief, guarded):
    """Neither then nor later: the challenge is not the registry's, and the error says whose."""
    registry = client(server.host)
    if guarded:
        server.on("GET", "tags", faults.answered(401, {"WWW-Authenticate": "Basic realm=x"}))
        server.on("GET", "tags", faults.answered(200, {}, b'{"tags":["v1"]}'))
        assert registry.tags("me/x") == ("v1",)
    lead(server, storage.host, "/blobs/", times=2)
    ask(storage, thief.host, times=2)
    with pytest.raises(RegistryError) as caught:
        b"".join(registry.blob("me/x", DESCRIPTOR))
    assert caught.value.status == 401
    assert f"{storage.host}/v2/me/x/blobs/" in caught.value.message
    assert f"{server.host} leads there" in caught.value.hint
    assert "torchship login" not in caught.value.hint
    with pytest.raises(RegistryError, match=storage.host):
        registry.has_blob("me/x", DESCRIPTOR)
    with pytest.raises(RegistryError) as caught:  # what is next asked of the registry itself
        registry.tags("me/x")
    assert caught.value.status == 404
    assert thief.seen == []
    assert not any("authorization" in one.headers for one in storage.seen)


def test_a_question_of_the_registrys_own_is_answered_before_it_leads_on(server, storage):
    """The usual way to a blob: the registry knows who asks, the storage need not."""
    server.on("GET", "/blobs/", faults.answered(401, {"WWW-Authenticate": "Basic realm=x"}))
    lead(server, storage.host, "/blobs/")
    storage.on("GET", "/blobs/", faults.answered(200, {}, BLOB))
    assert b"".join(client(server.host).blob("me/x", DESCRIPTOR)) == BLOB
    assert server.seen[-1].headers["authorization"] == ADA.basic
    assert "authorization" not in storage.seen[-1].headers


def test_what_leads_back_to_the_registry_is_not_asked_with_its_password(server, storage):
    """An upload's address elsewhere may lead anywhere, with questions of the registry's own."""
    server.on("POST", "", faults.answered(202, {"Location": f"http://{storage.host}/upload"}))
    storage.on("PUT", "", faults.hung_up)
    lead(storage, server.host, "/upload")
    server.on("GET", "/upload", faults.answered(401, {"WWW-Authenticate": "Basic realm=x"}))
    server.on("HEAD", "", faults.answered(404), times=-1)
    with pytest.raises(RegistryError):
        client(server.host).upload("me/x", DESCRIPTOR, source)
    assert server.count("GET", "/upload") == 1
    assert not any("authorization" in one.headers for one in (*server.seen, *storage.seen))


def test_a_token_service_that_leads_elsewhere_takes_no_password_along(server, storage, thief):
    """The registry names its token service; that names nobody else."""
    ask(server, storage.host, times=-1)
    storage.on("GET", "/token", faults.answered(307, {"Location": f"http://{thief.host}/token"}))
    thief.on("GET", "/token", faults.answered(401, {"WWW-Authenticate": "Basic realm=x"}))
    with pytest.raises(RegistryError):
        client(server.host).tags("me/x")
    assert storage.seen[-1].headers["authorization"] == ADA.basic
    assert len(thief.seen) == 1
    assert "authorization" not in thief.seen[0].headers


def test_pages_are_followed_where_the_registry_leads(server, storage):
    """A list that another host gives goes on there, asked without a password."""
    link = {"Link": '</v2/me/x/tags/list?last=a>; rel="next"'}
    lead(server, storage.host)
    storage.on("GET", "n=1000", faults.answered(200, link, b'{"tags":["a"]}'))
    storage.on("GET", "last=a", faults.answered(200, {}, b'{"tags":["b"]}'))
    assert client(server.host).tags("me/x") == ("a", "b")
    assert not any("authorization" in one.headers for one in storage.seen)


# -- services of this machine


@pytest.fixture
def far(server, monkeypatch):
    """Give the name of a registry that is elsewhere, though `server` answers in its place."""
    monkeypatch.setenv("http_proxy", f"http://{server.host}")
    monkeypatch.setenv(INSECURE, "registry.example")
    return "registry.example"


def test_a_registry_elsewhere_sends_no_upload_to_this_machine(server, far, storage):
    """Nothing is deleted, sent or asked for at an address of the loopback that it names."""
    place = {"Location": f"http://{storage.host}/production-index"}
    server.on("POST", "", faults.answered(202, place), times=-1)
    with pytest.raises(RegistryError, match="a service of this machine"):
        client(far).upload("me/x", DESCRIPTOR, source)
    assert not client(far).mount("me/x", DESCRIPTOR, origins=["me/y"])
    assert storage.seen == []


def test_a_registry_elsewhere_has_no_token_service_on_this_machine(server, far, thief):
    """No password goes there; where the user says so, it does."""
    ask(server, thief.host, times=-1)
    with pytest.raises(RegistryError, match="a service of this machine"):
        client(far).tags("me/x")
    assert thief.seen == []


def test_an_upload_that_was_begun_elsewhere_is_left_there(server, storage):
    """Whether it is one, only the registry knows: to mount a blob, nothing is deleted there."""
    begun = [f"http://{storage.host}/index", "/v2/me/x/blobs/uploads/1"]
    for place in begun:
        server.on("POST", "", faults.answered(202, {"Location": place}))
    assert not client(server.host).mount("me/x", DESCRIPTOR, origins=["me/y"])
    assert storage.seen == []
    assert server.count("DELETE", "/uploads/1") == 1
