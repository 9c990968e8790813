"""One exchange over HTTP: connections, trust, redirects, and how long to go on trying.

The only place that opens a socket to a registry. TLS always; plain HTTP for what the user names
in ``TORCHSHIP_INSECURE_REGISTRIES`` (``host:port,...``), and for the loopback where the registry
itself is there: one elsewhere has no business with the services of this machine.
Proxies are taken from the environment (``HTTPS_PROXY``, ``NO_PROXY``).
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

import urllib3
from msgspec import Struct
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError
from urllib3.util import parse_url

from torchship.digest import CHUNK
from torchship.errors import RegistryError
from torchship.oci.registry.patience import Interrupted, Patience

INSECURE = "TORCHSHIP_INSECURE_REGISTRIES"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_FOLLOWED = 5
_CONNECTIONS = 16
_PROBE_SECONDS = 3.0
_SHORT = 64 << 10  # bytes of a body
_AGENT = "torchship"
_ALLOWED = ":/?&=%@+,;~!$'()*#[]"  # RFC 3986, section 2.2, and what is quoted already
# The registry at docker.io answers under another name than its images have.
_ALIASES = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}

Body = bytes | Iterable[bytes]
Response = urllib3.BaseHTTPResponse
Headers = urllib3.HTTPHeaderDict


_PORTS = {"https": 443, "http": 80}


class Origin(Struct, frozen=True):
    """Scheme, host and port: what a credential belongs to (RFC 6454, section 4)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Read the origin of an absolute address; raise `RegistryError` where there is none."""
        try:
            # As the connection reads it: of "http://a\\@b/", other readers take another host.
            parts = parse_url(url)
            scheme, host = parts.scheme or "", (parts.host or "").strip("[]")
            port = parts.port or _PORTS[scheme]
        except (ValueError, KeyError):
            host = ""
        if not host:
            raise RegistryError(f"{public(url)!r} is not an address of the web")
        return cls(scheme, host, port)

    @property
    def loopback(self) -> bool:
        """True where the traffic never leaves this machine."""
        return _loopback(self.host)


class Answered(Struct, frozen=True):
    """An answer, its body unread, and the address that gave it: the last of all redirects."""

    response: Response
    url: str


class Transport:
    """Speaks HTTP with one registry, and with the hosts that it refers to. Thread-safe."""

    def __init__(self, host: str, *, patience: Patience | None = None) -> None:
        self.host = host
        self.patience = patience or Patience()
        self._address = _ALIASES.get(host, host)
        self._lock = threading.Lock()
        self._origin: str | None = None
        self._pools: dict[tuple[str | None, str], urllib3.PoolManager] = {}

    @property
    def origin(self) -> str:
        """Where the registry is, ``https://host:port``: known after a first connection."""
        with self._lock:
            if self._origin is None:
                self._origin = f"{self._scheme()}://{self._address}"
            return self._origin

    def url(self, path: str) -> str:
        """Return the absolute address of a path, or of an address that the registry gave."""
        return join(self.origin, path)

    def owns(self, url: str) -> bool:
        """Tell whether ``url`` is the registry itself: credentials go nowhere else."""
        return Origin.of(url) == Origin.of(self.origin)

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        authorization: str | None = None,
        body: Body | None = None,
    ) -> Answered:
        """Send one request and return the answer.

        Redirects of GET and HEAD are followed; ``authorization`` goes to the first origin
        only, and not to that either once they have led away from it: so a 401 may be another's,
        and says nothing about the account. Raises `Interrupted` where no whole answer came,
        `RegistryError` where the other side cannot be trusted.
        """
        home = Origin.of(url)
        for _ in range(_REDIRECTS_FOLLOWED + 1):
            origin = Origin.of(url)
            self._require_safe(origin, url)
            if origin != home:
                authorization = None
            sent = {"User-Agent": _AGENT, **headers}
            if authorization is not None:
                sent["Authorization"] = authorization
            response = self._send(method, url, sent, body, self.patience.silence)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or method not in {"GET", "HEAD"} or not location:
                return Answered(response, url)
            _finish(response)
            url = join(url, location)
        raise RegistryError(
            f"{self.host} redirects {method} {public(url)} in a circle",
            request=request(method, url),
        )

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None,
        silence: float,
    ) -> Response:
        timeout = urllib3.Timeout(connect=self.patience.connect, read=silence)
        try:
            return self._pool(url).urlopen(
                method,
                url,
                body=body,
                headers=headers,
                timeout=timeout,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
        except SSLError as fault:
            if "CERTIFICATE_VERIFY_FAILED" not in str(fault):
                raise _interrupted(method, url, fault) from fault
            raise RegistryError(
                f"the certificate of {Origin.of(url).host} is not trusted: {_why(fault)}",
                hint="name the file of its CA in SSL_CERT_FILE, or put it at "
                f"/etc/docker/certs.d/{self.host}/ca.crt",
                request=request(method, url),
            ) from fault
        except HTTPError as fault:
            raise _interrupted(method, url, fault) from fault

    def _require_safe(self, origin: Origin, url: str) -> None:
        """Raise unless a request may go to an address that the registry, or the user, gave."""
        if origin.scheme == "https" or _insecure(origin):
            return
        if not origin.loopback:
            raise RegistryError(
                f"{self.host} refers to {public(url)}, which is not encrypted",
                hint=f"name the host in {INSECURE} if you trust the network in between",
                request=public(url),
            )
        if not Origin.of(f"https://{self._address}").loopback:
            raise RegistryError(
                f"{self.host} refers to {public(url)}, a service of this machine",
                hint=f"name it with its port in {INSECURE} if that is meant",
                request=public(url),
            )

    def _scheme(self) -> str:
        """Decide between TLS and plain HTTP; the loopback is asked, TLS first."""
        here = Origin.of(f"http://{self._address}")
        if _insecure(here):
            return "http"
        if not here.loopback:
            return "https"
        # Somebody listens who does not speak TLS: on the loopback nobody reads along.
        return "https" if self._speaks_tls() else "http"

    def _speaks_tls(self) -> bool:
        """Shake hands, and believe nothing: whom to trust is for the first request to settle."""
        origin = Origin.of(f"https://{self._address}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with socket.create_connection((origin.host, origin.port), _PROBE_SECONDS) as plain:
                try:
                    context.wrap_socket(plain, server_hostname=origin.host).close()
                except OSError as fault:  # ssl.SSLError is one
                    # A server that asks for the client's own certificate does speak it. Where
                    # a connection just ended, some Pythons give None for a reason.
                    return "ALERT" in (getattr(fault, "reason", None) or "")
        except OSError as fault:
            url = f"{origin.scheme}://{self._address}/v2/"
            raise Interrupted(
                f"{self.host} could not be reached: {fault.strerror or fault}",
                hint="check that the registry is running, and its port",
                request=request("HEAD", url),
            ) from fault
        return True

    def _pool(self, url: str) -> urllib3.PoolManager:
        origin = Origin.of(url)
        proxy = _proxy(origin)
        kind = (proxy, origin.scheme)
        if kind not in self._pools:
            # No CAs are loaded where no TLS is spoken.
            context = trust(self.host) if origin.scheme == "https" else None
            self._pools[kind] = (
                urllib3.PoolManager(maxsize=_CONNECTIONS, ssl_context=context)
                if proxy is None
                else urllib3.ProxyManager(
                    proxy,
                    maxsize=_CONNECTIONS,
                    ssl_context=context,
                    proxy_headers=_proxy_account(proxy),
                )
            )
        return self._pools[kind]


def _finish(response: Response) -> None:
    """Be done with an answer whose body nobody needs; a short one is read: the connection stays."""
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) <= _SHORT:
        response.drain_conn()
    else:
        response.close()


def stream(response: Response, name: str) -> Iterator[bytes]:
    """Yield a body in pieces; raise `Interrupted` where it ends before its stated length."""
    try:
        yield from response.stream(CHUNK, decode_content=False)
    except HTTPError as fault:
        response.close()
        raise Interrupted(
            f"{name} was cut off: {_why(fault)}", hint="check the network", request=name
        ) from fault


def join(base: str, location: str) -> str:
    """Return the absolute address that a registry gave; raise `RegistryError` if it is none.

    Some registries leave characters in it that an address may not have: they are quoted.
    """
    try:
        return urljoin(base, quote(location, safe=_ALLOWED))
    except ValueError:
        raise RegistryError(f"{public(location)!r} is not an address of the web") from None


def public(url: str) -> str:
    """Return an address as errors may show it: no query, which may be signed, and no user."""
    bare = url.partition("?")[0].partition("#")[0]
    scheme, slashes, rest = bare.partition("//")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path}" if slashes else bare


def request(method: str, url: str) -> str:
    """Return how errors name a request."""
    return f"{method} {public(url)}"


def trust(host: str) -> ssl.SSLContext:
    """Return whom to trust: the system's CAs, SSL_CERT_FILE's, and Docker's for this host.

    Docker's rule: in ``certs.d/HOST``, each ``*.crt`` is a CA, each pair of ``*.cert`` and
    ``*.key`` a certificate of the client's own.
    """
    context = ssl.create_default_context()
    for folder in _certificate_folders():
        for path in sorted((folder / host).glob("*.cert")) + sorted((folder / host).glob("*.crt")):
            try:
                if path.suffix == ".crt":
                    context.load_verify_locations(path)
                else:
                    context.load_cert_chain(path, path.with_suffix(".key"))
            except OSError as fault:  # ssl.SSLError is one
                raise RegistryError(
                    f"the certificate {path} cannot be used: {fault.strerror or fault}",
                    hint="mend or remove it: PEM, readable for you, a client's with its .key",
                ) from fault
    return context


def _certificate_folders() -> tuple[Path, ...]:
    private = Path(os.environ.get("DOCKER_CONFIG") or "~/.docker").expanduser()
    return (Path("/etc/docker/certs.d"), Path("/etc/containers/certs.d"), private / "certs.d")


def _loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _insecure(origin: Origin) -> bool:
    named = {name.strip().lower() for name in os.environ.get(INSECURE, "").split(",")}
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return f"{host}:{origin.port}" in named or (origin.port == 80 and host in named)


def _proxy(origin: Origin) -> str | None:
    if origin.loopback:
        return None
    from urllib.request import getproxies, proxy_bypass

    if proxy_bypass(f"{origin.host}:{origin.port}"):
        return None
    return getproxies().get(origin.scheme)


def _proxy_account(proxy: str) -> Mapping[str, str]:
    """Return the field that names the account in a proxy's address: urllib3 leaves it to us."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return urllib3.make_headers(proxy_basic_auth=account)


def _interrupted(method: str, url: str, fault: HTTPError) -> Interrupted:
    # Of a proxy's faults, and of its own for TLS, urllib3 keeps the cause
    cause = getattr(fault, "original_error", fault)
    if isinstance(cause, NewConnectionError | ConnectTimeoutError):
        what = f"{urlsplit(url).netloc.rpartition('@')[2]} could not be reached"
    else:
        what = f"{request(method, url)} was interrupted"
    return Interrupted(
        f"{what}: {_why(fault)}",
        hint="check the network, and that the registry's name is right",
        request=request(method, url),
    )


def _why(fault: HTTPError) -> str:
    """Return the fault in one line, without urllib3's own objects and addresses."""
    text = str(fault.args[-1] if fault.args else fault) or type(fault).__name__
    return " ".join(text.rpartition(">: ")[2].split())[:200]
