"""Connections: where they may go, and what errors may show."""

import base64
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from tests.integration import proxy as faults
from tests.integration import registry as registries

from torchship.errors import RegistryError
from torchship.oci.registry.patience import Interrupted, Patience
from torchship.oci.registry.transport import INSECURE, Origin, Transport, public, trust


@pytest.fixture
def server():
    """Give an HTTP server that answers by rules."""
    with faults.running() as running:
        yield running


HASTY = Patience(attempts=1, connect=1.0, silence=1.0)


def test_plain_http_is_for_the_loopback_and_for_names_asked_for(server, monkeypatch):
    """Only loopback registries are tried without TLS, unless the user names others."""
    assert Transport(server.host).origin == f"http://{server.host}"
    assert Transport("registry.example").origin == "https://registry.example"
    monkeypatch.setenv(INSECURE, "other.example:80, registry.example:5000")
    assert Transport("registry.example:5000").origin == "http://registry.example:5000"
    assert Transport("registry.example").origin == "https://registry.example"
    monkeypatch.setenv(INSECURE, "registry.EXAMPLE:80,[2001:db8::1]:5000")
    assert Transport("registry.example").origin == "http://registry.example"
    assert Transport("[2001:db8::1]:5000").origin == "http://[2001:db8::1]:5000"
    assert Transport("[2001:db8::1]").origin == "https://[2001:db8::1]"


def test_docker_hub_answers_under_another_name():
    """Images of docker.io are served elsewhere."""
    assert Transport("docker.io").origin == "https://registry-1.docker.io"


def test_a_redirect_to_plain_http_elsewhere_is_refused(server):
    """What came by TLS, or from this machine, does not go on in the clear."""
    server.on("GET", "", faults.answered(307, {"Location": "http://other.example/blob?key=1"}))
    transport = Transport(server.host, patience=HASTY)
    with pytest.raises(RegistryError, match="not encrypted") as caught:
        transport.exchange("GET", transport.url("/v2/"), headers={})
    assert "key=1" not in f"{caught.value} {caught.value.hint} {caught.value.request}"
    assert INSECURE in caught.value.hint


def test_redirects_in_a_circle_end(server):
    """A registry cannot send its client round and round."""
    server.on("GET", "", faults.answered(302, {"Location": "/again"}), times=-1)
    transport = Transport(server.host, patience=HASTY)
    with pytest.raises(RegistryError, match="circle"):
        transport.exchange("GET", transport.url("/v2/"), headers={})


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/", "http://[::1"])
def test_redirects_to_no_web_address_are_refused(server, location):
    """Files of this machine and other schemes are out of reach."""
    server.on("GET", "", faults.answered(302, {"Location": location}))
    transport = Transport(server.host, patience=HASTY)
    with pytest.raises(RegistryError):
        transport.exchange("GET", transport.url("/v2/"), headers={})


def test_authorization_goes_to_the_first_origin_only(server):
    """A redirect to another port is a redirect to another host."""
    with faults.running() as other:
        server.on("GET", "", faults.answered(302, {"Location": f"http://{other.host}/there"}))
        transport = Transport(server.host, patience=HASTY)
        there = transport.exchange("GET", transport.url("/"), headers={}, authorization="Bearer x")
        there.response.close()
        assert there.url == f"http://{other.host}/there"
        assert server.seen[-1].headers["authorization"] == "Bearer x"
        assert "authorization" not in other.seen[-1].headers


def test_authorization_does_not_come_back(server):
    """Who leads away from a registry does not choose what is asked of it with its password."""
    with faults.running() as other:
        server.on("GET", "^/$", faults.answered(302, {"Location": f"http://{other.host}/"}))
        other.on("GET", "", faults.answered(302, {"Location": f"http://{server.host}/back"}))
        transport = Transport(server.host, patience=HASTY)
        transport.exchange("GET", transport.url("/"), headers={}, authorization="Bearer x")
        assert [one.path for one in server.seen[-2:]] == ["/", "/back"]
        assert "authorization" not in server.seen[-1].headers


def test_authorization_is_not_kept_from_tls_to_plain_http(server, tmp_path, monkeypatch):
    """Not even to the same host: what TLS hid, nobody in between is to read."""
    seen = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers["Authorization"])
            self.send_response(302)
            self.send_header("Location", f"http://{server.host}/plain")
            self.end_headers()

        def log_message(self, *args):
            pass

    made = registries.private_ca(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    with HTTPServer(("127.0.0.1", 0), Redirecting) as front:
        front.socket = context.wrap_socket(front.socket, server_side=True)
        thread = threading.Thread(target=front.serve_forever, args=(0.05,))
        thread.start()
        try:
            url = f"https://127.0.0.1:{front.server_address[1]}/v2/"
            transport = Transport(server.host, patience=HASTY)
            transport.exchange("GET", url, headers={}, authorization="Bearer x").response.close()
        finally:
            front.shutdown()
            thread.join()
    assert seen == ["Bearer x"]
    assert server.seen[-1].path == "/plain"
    assert "authorization" not in server.seen[-1].headers


@pytest.fixture
def far(server, monkeypatch):
    """Give a registry that is not on this machine: whatever is sent to it comes to `server`."""
    monkeypatch.setenv("http_proxy", f"http://{server.host}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv(INSECURE, "registry.example")
    return Transport("registry.example", patience=HASTY)


def test_only_a_registry_of_this_machine_leads_to_its_services(server, far, monkeypatch):
    """What listens on the loopback trusts whoever is there: no stranger's registry is."""
    with faults.running() as service:
        inside = {"Location": f"http://{service.host}/admin"}
        server.on("GET", "", faults.answered(307, inside), times=3)
        with pytest.raises(RegistryError, match="a service of this machine") as caught:
            far.exchange("GET", far.url("/v2/"), headers={})
        for method in ("GET", "PUT", "PATCH", "POST", "DELETE"):
            with pytest.raises(RegistryError, match="a service of this machine"):
                far.exchange(method, f"http://{service.host}/admin", headers={})
        assert service.seen == []
        assert INSECURE in caught.value.hint
        near = Transport(server.host, patience=HASTY)
        assert near.exchange("GET", near.url("/v2/"), headers={}).url.endswith("/admin")
        monkeypatch.setenv(INSECURE, f"registry.example,{service.host}")
        far.exchange("GET", far.url("/v2/"), headers={}).response.close()
        assert service.count("GET", "/admin") == 2


@pytest.mark.parametrize(
    "address",
    [
        "http://other.example\\@127.0.0.1/",
        "http://other.example\\@registry.example/",
        "http://127.0.0.1#@registry.example/",
        "http://registry.example@other.example/",
        "http://registry.example:80@127.0.0.1/",
        "http:/\t/127.0.0.1/",
    ],
)
def test_an_address_is_judged_as_it_is_connected_to(server, far, address):
    """Two readers of an address may find two hosts in it: the one that is asked counts."""
    with pytest.raises(RegistryError, match=r"not encrypted|this machine|not an address"):
        far.exchange("GET", address, headers={}, authorization="Bearer x")
    assert server.seen == []


def test_a_registry_that_is_not_there_is_an_interruption():
    """Nobody listens: the error names the address, and not the library that was used."""
    with faults.running() as gone:
        host = gone.host
    with pytest.raises(Interrupted) as caught:
        Transport(host, patience=HASTY).origin  # noqa: B018
    assert caught.value.message == f"{host} could not be reached: Connection refused"
    transport = Transport(host, patience=HASTY)
    with pytest.raises(Interrupted, match=rf"{host} could not be reached: .*refused") as caught:
        transport.exchange("GET", f"http://{host}/v2/", headers={})
    assert "urllib3" not in caught.value.message


def test_addresses_are_shown_without_their_secrets():
    """Queries may be signed, and users have passwords."""
    assert public("https://me:secret@h/v2/x?signature=s#f") == "https://h/v2/x"
    assert public("/v2/x?_state=s") == "/v2/x"


def test_an_origin_knows_its_default_port():
    """With the default port or without, it is the same origin."""
    assert Origin.of("https://h:443/a") == Origin.of("https://h/b")
    assert Origin.of("http://h") != Origin.of("https://h")
    assert Origin.of("http://127.9.9.9/").loopback
    assert Origin.of("http://[::1]:5000/").loopback
    assert not Origin.of("http://127.0.0.1.example/").loopback


def test_a_certificate_that_cannot_be_used_is_named(tmp_path, monkeypatch):
    """The file of a CA, or of a client, that is no certificate is found by its path."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("ca.crt", "client.cert"):
        path = tmp_path / "certs.d" / "registry.example" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no certificate")
        with pytest.raises(RegistryError, match=re.escape(str(path))):
            trust("registry.example")
        path.unlink()


def test_the_account_of_a_proxy_is_told_to_the_proxy(server, monkeypatch):
    """As its address in the environment has it, with what is quoted there unquoted."""
    server.on("GET", "", faults.answered(200))
    monkeypatch.setenv(INSECURE, "registry.example:80")
    monkeypatch.setenv("http_proxy", f"http://me:a%40b@{server.host}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    transport = Transport("registry.example:80", patience=HASTY)
    transport.exchange("GET", transport.url("/v2/"), headers={}).response.close()
    account = base64.b64encode(b"me:a@b").decode()
    assert server.seen[-1].headers["proxy-authorization"] == f"Basic {account}"
