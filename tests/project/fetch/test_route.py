"""Files that are reached as settings say: through proxies, over TLS, with passwords."""

from __future__ import annotations

import base64
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from tests.project.fetching import fetch
from tests.project.server import send, serve

from torchship.digest import Digest
from torchship.errors import FetchError
from torchship.progress import SILENT
from torchship.project.fetch.attempt import Wanted, exists, length
from torchship.project.fetch.mirrors import Mirrors
from torchship.project.fetch.route import Route

__all__ = ["serve"]

DATA = b"data" * 1000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Make a certificate of 127.0.0.1 that vouches for itself, with its key in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("this machine has no openssl")
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 "
        "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -out cert.pem -keyout key.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return both


def context(certificate: Path, *, asks: bool = False) -> ssl.SSLContext:
    """Return a server's TLS; with ``asks`` clients must show that same certificate."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(certificate)
    if asks:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(certificate)
    return made


def got(tmp_path: Path, source: str, **route) -> bool:
    """Fetch a file by a route."""
    wanted = Wanted(
        filename="a",
        digest=Digest.of(DATA),
        size=len(DATA),
        sources=(source,),
        routes=lambda address: Route(**route),
    )
    mirrors = Mirrors(())
    found = fetch([wanted], downloads=tmp_path / "d", mirrors=mirrors, progress=SILENT)
    shutil.rmtree(tmp_path / "d")
    return bool(found)


def basic(text: str) -> str:
    """Return the header that a user and a password make."""
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_a_proxy_stands_above_the_environments(serve, tmp_path: Path, monkeypatch) -> None:
    """A route's proxy is taken, unless no_proxy names the host; an empty one means none."""
    server, proxy = (serve(lambda handler: send(handler, DATA)) for _ in range(2))
    address = proxy.url.replace("//", "//me:pw@")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert got(tmp_path, "http://files.invalid/a", proxy=address)
    (method, path, headers) = proxy.requests[0]
    assert (method, path) == ("GET", "http://files.invalid/a")
    assert headers["proxy-authorization"] == basic("me:pw")
    assert got(tmp_path, f"{server.url}/a", proxy="")
    with pytest.raises(FetchError):
        got(tmp_path, f"{server.url}/a")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert got(tmp_path, f"{server.url}/a", proxy=address)
    assert len(proxy.requests) == 1


def test_a_proxy_that_cannot_be_spoken_to_is_told(tmp_path: Path) -> None:
    """A proxy of another kind than HTTP's is named, without its password."""
    with pytest.raises(FetchError, match="proxy socks5h://127") as caught:
        got(tmp_path, "http://files.invalid/a", proxy="socks5h://me:secret@127.0.0.1:9050")
    assert "secret" not in caught.value.message


def test_certificates_of_servers(serve, tmp_path: Path, certificate: Path) -> None:
    """A private authority is trusted where the route names it, or the host goes unverified."""
    server = serve(lambda handler: send(handler, DATA), context(certificate))
    with pytest.raises(FetchError, match="certificate is not trusted"):
        got(tmp_path, f"{server.url}/a")
    assert got(tmp_path, f"{server.url}/a", authorities=(certificate,))
    assert got(tmp_path, f"{server.url}/a", verified=False)
    routes = {"routes": lambda address: Route(authorities=(certificate,))}
    assert length(f"{server.url}/a", **routes) == len(DATA)
    assert exists(f"{server.url}/a", **routes)


def test_a_certificate_of_ones_own(serve, tmp_path: Path, certificate: Path) -> None:
    """A server that asks who is there is shown the route's certificate."""
    server = serve(lambda handler: send(handler, DATA), context(certificate, asks=True))
    trusting = {"authorities": (certificate,)}
    with pytest.raises(FetchError):
        got(tmp_path, f"{server.url}/a", **trusting)
    assert got(tmp_path, f"{server.url}/a", certificate=certificate, **trusting)
    key = certificate.with_name("key.pem")
    single = certificate.with_name("cert.pem")
    assert got(tmp_path, f"{server.url}/a", certificate=single, key=key, **trusting)
    with pytest.raises(FetchError, match=r"certificate .*cert\.pem cannot be used"):
        got(tmp_path, f"{server.url}/a", certificate=single, **trusting)


def test_a_password_of_the_settings(serve, tmp_path: Path, monkeypatch) -> None:
    """A route's user and password stand below the address's own, and above the netrc file's."""
    server = serve(lambda handler: send(handler, DATA))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login n password n\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    got(tmp_path, f"{server.url}/a", login=("you", "secret"))
    got(tmp_path, f"{server.url}/a".replace("//", "//me:pw@"), login=("you", "secret"))
    got(tmp_path, f"{server.url}/a")
    sent = [headers["authorization"] for _, _, headers in server.requests]
    assert sent == [basic("you:secret"), basic("me:pw"), basic("n:n")]
