"""The lock: everything an image is made of, pinned by sha256, for each platform."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from torchship.digest import Digest
from torchship.platform import Platform

FILENAME = "torchship.lock"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelPin:
    """A wheel. ``size`` in bytes; ``digest`` is the sha256 of the file."""

    name: str
    version: str
    filename: str
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagePin:
    """A Debian package. ``path`` is its place below a mirror's root: ``pool/main/b/bash/...``."""

    name: str
    version: str
    architecture: str
    path: str
    size: int
    digest: Digest

    @property
    def filename(self) -> str:
        """The file's name: the last part of the pool path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPin:
    """A data file. ``path`` is absolute, in the image; its addresses stay in the project."""

    path: str
    filename: str
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class BasePin:
    """What the image stands on: Debian packages, or a published image by its digest.

    ``reference`` is ``debian:SUITE`` (then ``packages`` are its content and ``digest`` is
    None), or an image reference (then ``digest`` is that of the platform's manifest).
    """

    reference: str
    digest: Digest | None = None
    packages: tuple[PackagePin, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformLock:
    """The pins of one platform. ``python`` is the base's full version, such as ``3.11.2``."""

    platform: Platform
    python: str
    base: BasePin
    wheels: tuple[WheelPin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """``torchship.lock``. ``inputs`` is the digest of what it was resolved from.

    ``created`` (UTC) lets a snapshot archive serve Debian packages that mirrors have dropped.
    """

    created: datetime
    inputs: Digest
    platforms: tuple[PlatformLock, ...]
    data: tuple[DataPin, ...] = ()
