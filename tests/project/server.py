"""HTTP servers on loopback that answer as a test says, over TLS where it gives a context."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

Handler = http.server.BaseHTTPRequestHandler


class Server:
    """An HTTP server whose answers are given by a function; it remembers the requests."""

    def __init__(
        self, answer: Callable[[Handler], None], context: ssl.SSLContext | None = None
    ) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        outer = self

        class Answering(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append((self.command, self.path, headers))
                try:
                    answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_HEAD = do_GET  # noqa: N815 (http.server asks for the name)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, client: None  # clients that hang up
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.port = self._server.server_address[1]
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Start servers, and stop them after the test."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "NETRC"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    servers: list[Server] = []

    def start(answer: Callable[[Handler], None], context: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(answer, context))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def send(
    handler: Handler, data: bytes, *, ranges: bool = True, upto: int | None = None, etag: str = ""
) -> None:
    """Answer as a good file server does; ``upto`` bytes of the body, then hang up."""
    start = 0
    asked = handler.headers.get("Range", "")
    if ranges and asked.startswith("bytes="):
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    else:
        handler.send_response(200)
    handler.send_header("Content-Length", str(len(data) - start))
    if etag:
        handler.send_header("ETag", etag)
    handler.end_headers()
    if handler.command == "HEAD":
        return
    handler.wfile.write(data[start:upto])
    if upto is not None and upto < len(data):
        handler.wfile.flush()
        handler.close_connection = True


def status(handler: Handler, code: int, **headers: str) -> None:
    """Answer with a status and headers alone."""
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", "0")
    handler.end_headers()
