"""A small grey picture as a PNG (third edition, W3C 2025) in a data URI (RFC 2397).

A page that holds its pictures asks nothing of the network.
"""

from __future__ import annotations

import base64
import struct

import deflate

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTH, _GREY = 8, 0  # 11.2.1 IHDR: bits of a sample, and the colour type
_LEVEL = 9


def data_uri(width: int, height: int, pixels: bytes) -> str:
    """Return a picture of grey bytes, row by row from the top left, 0 black and 255 white."""
    return f"data:image/png;base64,{base64.b64encode(png(width, height, pixels)).decode()}"


def png(width: int, height: int, pixels: bytes) -> bytes:
    """Encode grey bytes; the same picture has the same bytes on every machine."""
    header = struct.pack(">IIBBBBB", width, height, _DEPTH, _GREY, 0, 0, 0)
    # 9.2: every row is preceded by its filter; 0 leaves the bytes as they are
    rows = (pixels[start : start + width] for start in range(0, width * height, width))
    packed = deflate.zlib_compress(b"".join(b"\0" + row for row in rows), _LEVEL)
    chunks = ((b"IHDR", header), (b"IDAT", bytes(packed)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", deflate.crc32(kind + data))
    )
