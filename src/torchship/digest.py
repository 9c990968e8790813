"""Content digests and the descriptors that name blobs by them.

Source: OCI image-spec v1.1, descriptor.md ("Digests" and "Properties").
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from msgspec import Struct, field

from torchship.errors import InvalidDigest

_ENCODED = re.compile(r"[0-9a-f]{64}")

CHUNK = 1 << 20
"""Bytes read at a time wherever a file is streamed: memory stays flat for any size."""


class Digest(Struct, frozen=True, order=True):
    """A sha256 digest: 64 lower-case hexadecimal digits, checked."""

    hex: str

    def __post_init__(self) -> None:
        if not _ENCODED.fullmatch(self.hex):
            raise InvalidDigest(f"{self.hex!r} is not a sha256 digest: 64 hexadecimal digits")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:<hex>``; raise `InvalidDigest` for any other algorithm or form."""
        algorithm, colon, encoded = text.partition(":")
        if not colon or algorithm != "sha256":
            raise InvalidDigest(f"{text!r} is not a digest of the form sha256:<64 hex digits>")
        return cls(encoded)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Hash bytes that are already in memory."""
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def of_stream(cls, stream: BinaryIO) -> Digest:
        """Hash a stream to its end, in chunks."""
        running = hashlib.sha256()
        while chunk := stream.read(CHUNK):
            running.update(chunk)
        return cls(running.hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Digest:
        """Hash a file, in chunks."""
        with path.open("rb") as stream:
            return cls.of_stream(stream)

    @property
    def short(self) -> str:
        """The first 12 digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


class Descriptor(Struct, frozen=True, kw_only=True):
    """Names a blob: what it is, its digest and its size in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    platform: Mapping[str, str] | None = None
    artifact_type: str | None = None

    def as_json(self) -> dict[str, object]:
        """Return the descriptor as the object that goes into a manifest or an index."""
        document: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.platform is not None:
            document["platform"] = dict(self.platform)
        if self.artifact_type is not None:
            document["artifactType"] = self.artifact_type
        return document


def chunks(stream: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """Yield a stream piece by piece: ``size`` bytes of it, or all that is left.

    Ends early, without an error, where the stream does; callers check the length.
    """
    left = size
    while left is None or left > 0:
        piece = stream.read(CHUNK if left is None else min(CHUNK, left))
        if not piece:
            return
        if left is not None:
            left -= len(piece)
        yield piece
