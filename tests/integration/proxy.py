"""A small HTTP proxy before a registry (or before nothing) that injects faults.

Rules are tried in order; one that matches is used up after ``times`` requests. Whatever no
rule wants is passed on, or answered 404 where there is nothing behind.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_PIECE = 1 << 16


@dataclass(frozen=True)
class Seen:
    """One request that came by; the body counts as far as it was read."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Rule:
    """What to do with requests of a method and a path (regular expressions)."""

    method: str
    path: str
    act: Callable[[Exchange], None]
    times: int


@dataclass
class FaultProxy:
    """The running proxy: ``host`` is where clients go."""

    host: str
    upstream: str | None
    rules: list[Rule] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    fired: int = 0
    states: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on(self, method: str, path: str, act: Callable[[Exchange], None], *, times: int = 1):
        """Add a rule; ``times`` below zero means for ever."""
        self.rules.append(Rule(method, path, act, times))

    def count(self, method: str, path: str = "") -> int:
        """Return how many requests of that kind came by."""
        return sum(
            bool(re.fullmatch(method, one.method) and re.search(path, one.path))
            for one in self.seen
        )

    def take(self, method: str, path: str) -> Callable[[Exchange], None]:
        """Return what to do with a request."""
        with self._lock:
            for rule in self.rules:
                if rule.times and re.fullmatch(rule.method, method) and re.search(rule.path, path):
                    rule.times -= 1
                    self.fired += 1
                    return rule.act
        return passed_on


class Exchange(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultProxy

    def handle(self) -> None:
        """Hang up on whoever speaks TLS, instead of waiting for the end of its line."""
        with suppress(OSError):
            if self.connection.recv(1, socket.MSG_PEEK) != b"\x16":
                super().handle()

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def serve(self) -> None:
        """Answer one request."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.proxy.seen.append(Seen(self.command, self.path, headers))
        self.left = int(self.headers.get("Content-Length") or 0)
        try:
            self.proxy.take(self.command, self.path)(self)
        except OSError:
            self.hang_up()

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Serve every method alike: the base class asks for ``do_GET`` and its like."""
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def body(self, most: int | None = None) -> Iterator[bytes]:
        """Yield what is left of the request's body, or the first ``most`` bytes of it."""
        most = self.left if most is None else min(most, self.left)
        while most > 0 and (piece := self.rfile.read1(min(_PIECE, most))):
            most -= len(piece)
            self.left -= len(piece)
            yield piece

    def hang_up(self) -> None:
        """Cut the connection to the client, hard."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def upstream(self, most: int | None = None) -> http.client.HTTPConnection:
        """Send the request on, with at most ``most`` bytes of its body."""
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=30)
        bare = self.path.partition("?")[0]
        path = self.proxy.states.pop(bare, self.path) if self.command == "GET" else self.path
        connection.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "connection":
                connection.putheader(name, value)
        connection.endheaders()
        for piece in self.body(most):
            connection.send(piece)
        return connection

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin an answer."""
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def passed_on(exchange: Exchange) -> None:
    """Do nothing wrong."""
    _pass_on(exchange, None)


def _pass_on(exchange: Exchange, most: int | None, change: Callable[[bytes], bytes] | None = None):
    if exchange.proxy.upstream is None:
        answered(404)(exchange)
        return
    connection = exchange.upstream()
    response = connection.getresponse()
    headers = dict(response.getheaders())
    headers.pop("Connection", None)
    if change is not None:
        whole = change(response.read())
        headers["Content-Length"] = str(len(whole))
        exchange.head(response.status, headers)
        exchange.wfile.write(whole)
    else:
        if "Content-Length" not in headers and exchange.command != "HEAD":
            headers["Connection"] = "close"
            exchange.close_connection = True
        exchange.head(response.status, headers)
        sent = 0
        while piece := response.read1(_PIECE if most is None else min(_PIECE, most - sent)):
            exchange.wfile.write(piece)
            sent += len(piece)
            if most is not None and sent >= most:
                exchange.hang_up()
                break
    connection.close()


def answered(status: int, headers: Mapping[str, str] | None = None, body: bytes = b""):
    """Answer ourselves, without reading on in the request's body."""

    def act(exchange: Exchange) -> None:
        if exchange.left:
            exchange.close_connection = True
        exchange.head(status, {"Content-Length": str(len(body)), **(headers or {})})
        if exchange.command != "HEAD":
            exchange.wfile.write(body)

    return act


def changed(change: Callable[[bytes], bytes]):
    """Pass on, but change the body of the answer."""
    return lambda exchange: _pass_on(exchange, None, change)


def cut_answer(after: int):
    """Pass on, but cut the connection after so many bytes of the answer's body."""
    return lambda exchange: _pass_on(exchange, after)


def _part_arrives(exchange: Exchange, after: int) -> None:
    """Hand the first bytes of an upload on as a whole chunk, and drop the rest.

    distribution 2.8 itself cannot resume an upload that was cut within a request: it signs the
    offset into the upload's address, and refuses the old one. Others can, so this makes it
    look as if it could: the next question for the upload's state gets the new address.
    """
    bare, _, query = exchange.path.partition("?")
    state = re.sub(r"&?digest=[^&]*", "", query)
    connection = http.client.HTTPConnection(exchange.proxy.upstream, timeout=30)
    headers = {
        name: value
        for name, value in exchange.headers.items()
        if name.lower() not in ("connection", "content-length", "content-range")
    }
    part = b"".join(exchange.body(after))
    connection.request("PATCH", f"{bare}?{state}", part, headers)
    response = connection.getresponse()
    response.read()
    assert response.status == 202, response.status
    location = urlsplit(response.headers["Location"])
    exchange.proxy.states[bare] = f"{location.path}?{location.query}"
    connection.close()


def cut_resumably(after: int):
    """Let so many bytes of an upload arrive for good, then cut the connection."""

    def act(exchange: Exchange) -> None:
        _part_arrives(exchange, after)
        exchange.hang_up()

    return act


def refused_resumably(after: int, status: int, headers: Mapping[str, str] | None = None):
    """Let so many bytes of an upload arrive for good, then answer with an error."""

    def act(exchange: Exchange) -> None:
        _part_arrives(exchange, after)
        for _ in exchange.body():
            pass
        answered(status, headers)(exchange)

    return act


def cut_request(after: int):
    """Let so many bytes of the request's body through, then cut both connections."""

    def act(exchange: Exchange) -> None:
        connection = exchange.upstream(after)
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        exchange.hang_up()

    return act


def refused_midway(after: int, status: int, headers: Mapping[str, str] | None = None):
    """Let so many bytes of the request through, cut what is behind, and answer ourselves."""

    def act(exchange: Exchange) -> None:
        connection = exchange.upstream(after)
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        for _ in exchange.body():
            pass
        answered(status, headers)(exchange)

    return act


def lost_answer(exchange: Exchange) -> None:
    """Pass the request on, wait until it is done, and never tell the client."""
    connection = exchange.upstream()
    connection.getresponse().read()
    connection.close()
    exchange.hang_up()


def hung_up(exchange: Exchange) -> None:
    """Cut the connection before anything is passed on."""
    exchange.hang_up()


def silent(seconds: float):
    """Pass the request on, wait until it is done, then say nothing for so long."""

    def act(exchange: Exchange) -> None:
        connection = exchange.upstream()
        connection.getresponse().read()
        connection.close()
        threading.Event().wait(seconds)
        exchange.hang_up()

    return act


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, *args: object) -> None:
        """Cut connections are what this is for."""


@contextmanager
def running(upstream: str | None = None) -> Iterator[FaultProxy]:
    """Run a proxy on a free loopback port."""
    proxy = FaultProxy(host="", upstream=upstream)
    handler = type("Bound", (Exchange,), {"proxy": proxy})
    server = _Server(("127.0.0.1", 0), handler)
    proxy.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
