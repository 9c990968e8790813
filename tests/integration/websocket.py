"""The server's side of a WebSocket (RFC 6455), and the channels that kubectl speaks over one.

Kubernetes' subprotocol v5.channel.k8s.io: the first byte of a message is its channel; 255 says
which channel is closed (KEP-4006).
"""

from __future__ import annotations

import base64
import hashlib
import struct
import threading
from typing import BinaryIO

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, CLOSE = 0, 1, 2, 3, 255

_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY, _CLOSED, _PING, _PONG = 2, 8, 9, 10


def accept(key: str) -> str:
    """Return what answers the client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1((key + _MAGIC).encode()).digest()).decode()


class Channels:
    """One connection, after the upgrade."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink
        self._lock = threading.Lock()

    def send(self, channel: int, data: bytes) -> None:
        """Send a message on a channel."""
        self._frame(_BINARY, bytes([channel]) + data)

    def close(self) -> None:
        """Say that all is sent."""
        self._frame(_CLOSED, struct.pack("!H", 1000))

    def receive(self) -> tuple[int, bytes] | None:
        """Return the next message and its channel; None at the end."""
        while True:
            head = self._source.read(2)
            if len(head) < 2:
                return None
            kind, size = head[0] & 15, head[1] & 127
            if size == 126:
                (size,) = struct.unpack("!H", self._source.read(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self._source.read(8))
            mask = self._source.read(4) if head[1] & 128 else b"\0\0\0\0"
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(self._source.read(size)))
            if kind == _PING:
                self._frame(_PONG, data)
            elif kind == _CLOSED:
                return None
            elif kind == _BINARY and data:
                return data[0], data[1:]

    def _frame(self, kind: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", 128 | kind, size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", 128 | kind, 126, size)
        else:
            head = struct.pack("!BBQ", 128 | kind, 127, size)
        with self._lock:
            self._sink.write(head + data)
            self._sink.flush()
