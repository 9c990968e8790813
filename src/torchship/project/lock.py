"""The lock: everything an image is made of, pinned by sha256, for each platform."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct, field

from torchship.digest import Digest
from torchship.errors import LockError
from torchship.platform import Platform
from torchship.project import builds

FILENAME = "torchship.lock"
VERSION = 1
VERSION_WITH_VARIANTS = 2
"""The format of a lock that holds variants: others stay readable for those who know only 1."""


class WheelPin(Struct, frozen=True, kw_only=True):
    """A wheel. ``size`` in bytes; ``digest`` is the sha256 of the file."""

    name: str
    version: str
    filename: str
    size: int
    digest: Digest


class PackagePin(Struct, frozen=True, kw_only=True):
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


class DataPin(Struct, frozen=True, kw_only=True):
    """A data file. ``path`` is absolute, in the image; its addresses stay in the project."""

    path: str
    filename: str
    size: int
    digest: Digest


class BasePin(Struct, frozen=True, kw_only=True):
    """What the image stands on: Debian packages, or a published image by its digest.

    ``reference`` is ``debian:SUITE`` (then ``packages`` are its content and ``digest`` is
    None), or an image reference (then ``digest`` is that of the platform's manifest, and
    ``interpreter`` is where its Python is: empty in locks of before that was written down).
    """

    reference: str
    digest: Digest | None = None
    interpreter: str = ""
    packages: tuple[PackagePin, ...] = ()


class PlatformLock(Struct, frozen=True, kw_only=True):
    """The pins of one platform. ``python`` is the base's full version, such as ``3.11.2``.

    ``variant`` names the build of torch that this one is of, where a platform has several; they
    stand in the order of choice, and differ in nothing but their wheels.
    """

    platform: Platform
    python: str
    base: BasePin
    wheels: tuple[WheelPin, ...]
    variant: str = ""

    @property
    def torch(self) -> str:
        """What is taken of torch, for people: ``torch 2.13.0 (cu130)``; empty without torch."""
        build = builds.of_torch(self.wheels)
        version = next((pin.version for pin in self.wheels if pin.name == "torch"), "")
        plain = version.partition("+")[0]
        return f"torch {plain} ({build})" if build else f"torch {plain}" if plain else ""


class Lock(Struct, frozen=True, kw_only=True):
    """``torchship.lock``. ``inputs`` is the digest of what it was resolved from.

    ``created`` (UTC) lets a snapshot archive serve Debian packages that mirrors have dropped.
    ``resolved_from`` spells the inputs out, one value or digest each, so that staleness can
    be explained; ``inputs`` is its digest wherever a lock was resolved or loaded.
    """

    created: datetime
    inputs: Digest
    platforms: tuple[PlatformLock, ...]
    data: tuple[DataPin, ...] = ()
    resolved_from: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def platform(self, platform: Platform, variant: str = "") -> PlatformLock:
        """Return the pins of one platform; raise `LockError` where there are none.

        Without a variant's name, those of the first.
        """
        entries = self.of(platform)
        if not entries:
            names = dict.fromkeys(str(entry.platform) for entry in self.platforms)
            held = ", ".join(names) or "no platform"
            raise LockError(
                f"{FILENAME} holds nothing for {platform}: it is for {held}",
                hint=f'add "{platform}" to `platforms` in [tool.torchship]; run `torchship lock`',
            )
        for entry in entries:
            if not variant or entry.variant == variant:
                return entry
        held = ", ".join(entry.variant for entry in entries if entry.variant) or "none"
        raise LockError(
            f"{FILENAME} holds no variant {variant} for {platform}: it has {held}",
            hint=f'add "{variant}" to `torch` in [tool.torchship] and run `torchship lock`',
        )

    def of(self, platform: Platform) -> tuple[PlatformLock, ...]:
        """Return the pins of all variants of one platform, the first choice first."""
        return tuple(entry for entry in self.platforms if entry.platform == platform)


def load(path: Path) -> Lock:
    """Read a lock; raise `LockError` with the path to each fault of one that is damaged."""
    from torchship.project import lockfile

    return lockfile.read(path)


def save(lock: Lock, path: Path) -> None:
    """Write a lock: sorted, so that equal locks are equal files; at once or not at all."""
    from torchship.project import lockfile

    lockfile.write(lock, path)


_BASE, _ALONE, _VARIANT = "base", "wheels", "wheels of a variant"


def changes(old: Lock, new: Lock) -> tuple[str, ...]:
    """Say in lines what a new lock changes: ``linux/amd64: numpy 2.0.0 -> 2.1.0``.

    A platform, or a variant of one, that only one of them is for is one line.
    """
    before, after = _versions(old), _versions(new)
    lines = []
    for key in sorted(before.keys() | after.keys()):
        where, kind = key
        if key not in before or key not in after:
            if kind != _ALONE:  # its platform is told, or the variants that stand for it
                lines.append(f"{where} {'added' if key in after else 'removed'}")
            continue
        held, taken = before[key], after[key]
        for name in sorted(held.keys() | taken.keys()):
            was, now = held.get(name), taken.get(name)
            if was is None:
                lines.append(f"{where}: {name} {now} added")
            elif now is None:
                lines.append(f"{where}: {name} {was} removed")
            elif was != now:
                lines.append(f"{where}: {name} {was} -> {now}")
    return tuple(lines)


def _versions(lock: Lock) -> Mapping[tuple[str, str], Mapping[str, str]]:
    """Return the version of everything that a lock pins, by where it is, what it is and name."""
    found = {("data", _BASE): {pin.path: pin.digest.short for pin in lock.data}}
    for entry in lock.platforms:
        below = found.setdefault((str(entry.platform), _BASE), {})
        if entry.base.digest:
            below[entry.base.reference] = entry.base.digest.short
        below.update((pin.name, pin.version) for pin in entry.base.packages)
        where = f"{entry.platform} {entry.variant}".strip()
        wheels = {pin.name: pin.version for pin in entry.wheels}
        found[where, _VARIANT if entry.variant else _ALONE] = wheels
    return found
