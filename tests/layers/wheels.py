"""Wheels made by hand, byte by byte, so that they can lie in any place.

Each header's fields can be overridden by name; what is not overridden is the truth.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torchship.digest import Digest
from torchship.project.lock import WheelPin

NAME = "demo-1.0-py3-none-any.whl"
WHEEL = b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"


@dataclass(frozen=True, kw_only=True)
class File:
    """A member. ``stream`` are its compressed bytes where they are not those of ``content``."""

    name: str | bytes
    content: bytes = b""
    method: int = 8
    flags: int = 0
    mode: int = 0o100644
    stream: bytes | None = None
    local: Mapping[str, int | bytes] = field(default_factory=dict)
    central: Mapping[str, int | bytes] = field(default_factory=dict)
    descriptor: bytes = b""
    after: bytes = b""

    @property
    def raw(self) -> bytes:
        """The name's bytes."""
        return self.name if isinstance(self.name, bytes) else self.name.encode()

    @property
    def data(self) -> bytes:
        """The compressed bytes."""
        if self.stream is not None:
            return self.stream
        return deflated(self.content) if self.method == 8 else self.content

    def fields(self, overrides: Mapping[str, int | bytes]) -> dict[str, int | bytes]:
        """Return what a header says of the file."""
        return {
            "flags": self.flags,
            "method": self.method,
            "crc32": zlib.crc32(self.content),
            "compressed": len(self.data),
            "size": len(self.content),
            "name": self.raw,
            "extra": b"",
            **overrides,
        }


def deflated(content: bytes) -> bytes:
    """Return a raw deflate stream."""
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return encoder.compress(content) + encoder.flush()


def zipped(
    *files: File,
    before: bytes = b"",
    after: bytes = b"",
    comment: bytes = b"",
    end: Mapping[str, int] | None = None,
    end64: Mapping[str, int] | None = None,
) -> bytes:
    """Write a zip; with ``end64`` (overrides, may be empty) it has a zip64 end as well."""
    body = bytearray(before)
    directory = bytearray()
    for file in files:
        offset = len(body)
        it = file.fields(file.local)
        body += struct.pack(
            "<4s5H3I2H", b"PK\x03\x04", 20, it["flags"], it["method"], 0, 33,
            it["crc32"], it["compressed"], it["size"], len(it["name"]), len(it["extra"]),
        )  # fmt: skip
        body += it["name"] + it["extra"] + file.data + file.descriptor + file.after
        it = file.fields({"offset": offset, "mode": file.mode, "disk": 0, **file.central})
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 0x0314, 20, it["flags"], it["method"], 0, 33,
            it["crc32"], it["compressed"], it["size"], len(it["name"]), len(it["extra"]), 0,
            it["disk"], 0, it["mode"] << 16, it["offset"],
        )  # fmt: skip
        directory += it["name"] + it["extra"]
    stated = {
        "disk": 0, "first": 0, "here": len(files), "entries": len(files),
        "size": len(directory), "offset": len(body),
    }  # fmt: skip
    tail = b""
    if end64 is not None:
        wide = {**stated, **end64}
        tail = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, *wide.values())
        at = len(body) + len(directory)
        tail += struct.pack("<4sIQI", b"PK\x06\x07", 0, at, 1)
    stated.update(end or {})
    tail += struct.pack("<4s4H2IH", b"PK\x05\x06", *stated.values(), len(comment)) + comment
    return bytes(body + directory) + tail + after


def members(*files: File, record: bytes | None = None) -> tuple[File, ...]:
    """Add what makes a wheel of files: the .dist-info folder."""
    if record is None:
        names = [file.raw for file in files]
        names += [b"demo-1.0.dist-info/%b" % name for name in (b"METADATA", b"WHEEL", b"RECORD")]
        record = b"".join(b"%b,,\n" % name for name in names)
    return (
        *files,
        File(name="demo-1.0.dist-info/METADATA", content=METADATA),
        File(name="demo-1.0.dist-info/WHEEL", content=WHEEL),
        File(name="demo-1.0.dist-info/RECORD", content=record),
    )


def pinned(folder: Path, data: bytes, filename: str = NAME) -> tuple[WheelPin, dict[Digest, Path]]:
    """Put a wheel on disk; return its pin, and the files that a recipe takes."""
    path = folder / filename
    path.write_bytes(data)
    name, version = filename.split("-")[:2]
    digest = Digest.of(data)
    pin = WheelPin(name=name, version=version, filename=filename, size=len(data), digest=digest)
    return pin, {digest: path}
