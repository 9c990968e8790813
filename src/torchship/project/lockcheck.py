"""What a lock's file says, believed only when all of it has been looked at.

Names of files end in paths, and versions in file names: each is checked before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from types import MappingProxyType

import msgspec

from torchship import canonical
from torchship.digest import Digest
from torchship.errors import InvalidDigest, UsageError
from torchship.platform import Platform
from torchship.project import builds, names, tables
from torchship.project.lock import (
    VERSION_WITH_VARIANTS,
    BasePin,
    DataPin,
    Lock,
    PackagePin,
    PlatformLock,
    WheelPin,
)

_LARGEST = 1 << 40  # bytes; a lock that states more is damaged
_DEBIAN_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_DEBIAN_VERSION = re.compile(r"[A-Za-z0-9.+~:-]+")
_INTERPRETER = re.compile(r"/usr(?:/local)?/bin/python(3\.[0-9]{1,2})")
_PYTHON = re.compile(r"3\.[0-9]{1,2}\.[0-9]{1,2}\S*")


class _Wheel(tables.Table):
    name: str
    version: str
    filename: str
    size: int
    sha256: str


class _Package(tables.Table):
    name: str
    version: str
    architecture: str
    path: str
    size: int
    sha256: str


class _Base(tables.Table):
    reference: str
    digest: str | None = None
    interpreter: str = ""
    package: tuple[_Package, ...] = ()


class _Variant(tables.Table):
    name: str
    wheel: tuple[_Wheel, ...] = ()


class _Platform(tables.Table):
    platform: str
    python: str
    base: _Base
    wheel: tuple[_Wheel, ...] = ()  # of every variant, where there are any
    variant: tuple[_Variant, ...] = ()


class _Data(tables.Table):
    path: str
    filename: str
    size: int
    sha256: str


class _Lock(tables.Table, rename={"resolved_from": "resolved-from"}):
    version: int
    created: datetime
    inputs: str
    checksum: str
    platform: tuple[_Platform, ...]
    resolved_from: dict[str, str] = msgspec.field(default_factory=dict)
    data: tuple[_Data, ...] = ()


def check(document: Mapping[str, object], issues: list[str]) -> Lock | None:
    """Return the lock that a document is; append every fault, with its path, to ``issues``."""
    shape = tables.read(_Lock, document, "", issues)
    return _Checker(issues).lock(shape) if shape is not None else None


def inputs(resolved_from: Mapping[str, str]) -> Digest:
    """Return the digest of what a lock was resolved from."""
    return Digest.of(canonical.encode(dict(resolved_from)))


class _Checker:
    """Turns a lock's typed fields into checked values, noting each fault by its path."""

    def __init__(self, issues: list[str]) -> None:
        self._issues = issues

    def lock(self, shape: _Lock) -> Lock | None:
        """Return the lock, or None where anything was noted."""
        platforms = [
            found
            for i, entry in enumerate(shape.platform)
            for found in self._platform(entry, f"platform[{i}]", shape.version)
        ]
        data = [self._data(pin, f"data[{i}]") for i, pin in enumerate(shape.data)]
        stated = self._digest(shape.inputs, "inputs")
        self._digest(shape.checksum, "checksum")
        if not platforms:
            self._note("platform", "is empty")
        self._once((entry.platform for entry in shape.platform), "platform")
        self._once((pin.path for pin in shape.data), "data")
        if shape.resolved_from and stated not in (None, inputs(shape.resolved_from)):
            self._note("inputs", "is not the digest of [resolved-from]")
        if shape.created.tzinfo is None:
            self._note("created", "has no time zone")
        if self._issues or stated is None:
            return None
        return Lock(
            created=shape.created.astimezone(UTC),
            inputs=stated,
            platforms=tuple(platforms),
            data=tuple(pin for pin in data if pin),
            resolved_from=MappingProxyType(dict(shape.resolved_from)),
        )

    def _note(self, at: str, fault: str) -> None:
        self._issues.append(f"{at}: {fault}")

    def _once(self, said: Iterable[str], at: str) -> None:
        seen: set[str] = set()
        for i, name in enumerate(said):
            if name in seen:
                self._note(f"{at}[{i}]", f"{name} stands here a second time")
            seen.add(name)

    def _digest(self, text: str, at: str) -> Digest | None:
        try:
            return Digest.parse(text)
        except InvalidDigest:
            self._note(at, "expected sha256: and 64 hexadecimal digits")
            return None

    def _file(self, pin: _Wheel | _Package | _Data, at: str) -> Digest | None:
        """Check what every pinned file has: a size and a sha256."""
        if not 0 <= pin.size <= _LARGEST or (pin.size == 0 and not isinstance(pin, _Data)):
            self._note(f"{at}.size", f"{pin.size} is not a file's size in bytes")
        try:
            return Digest(pin.sha256)
        except InvalidDigest:
            self._note(f"{at}.sha256", "expected 64 hexadecimal digits")
            return None

    def _platform(self, entry: _Platform, at: str, version: int) -> tuple[PlatformLock, ...]:
        platform = None
        try:
            platform = Platform.parse(entry.platform)
        except UsageError as error:
            self._note(f"{at}.platform", error.message)
        if not _PYTHON.fullmatch(entry.python):
            self._note(f"{at}.python", f"{entry.python!r} is not a version such as 3.11.2")
        minor = ".".join(entry.python.split(".")[:2])
        base = self._base(entry.base, minor, f"{at}.base")
        common = self._wheels(entry.wheel, f"{at}.wheel")
        variants = {"": common}
        if entry.variant:
            variants = self._variants(entry, f"{at}.variant", common)
        if entry.variant and version < VERSION_WITH_VARIANTS:
            self._note(f"{at}.variant", f"a lock of format {version} has none")
        if platform is None:
            return ()
        return tuple(
            PlatformLock(
                platform=platform, python=entry.python, base=base, wheels=wheels, variant=name
            )
            for name, wheels in variants.items()
        )

    def _variants(
        self, entry: _Platform, at: str, common: tuple[WheelPin, ...]
    ) -> dict[str, tuple[WheelPin, ...]]:
        found = {}
        self._once((variant.name for variant in entry.variant), at)
        for i, variant in enumerate(entry.variant):
            if not builds.is_build(variant.name) or variant.name == builds.AUTO:
                self._note(f"{at}[{i}].name", f"{variant.name!r} is not a build of torch")
            own = self._wheels(variant.wheel, f"{at}[{i}].wheel")
            every = (*(pin.name for pin in entry.wheel), *(pin.name for pin in variant.wheel))
            self._once(every, f"{at}[{i}].wheel")
            found[variant.name] = tuple(sorted((*common, *own), key=lambda pin: pin.name))
        return found

    def _wheels(self, pins: tuple[_Wheel, ...], at: str) -> tuple[WheelPin, ...]:
        found = [self._wheel(pin, f"{at}[{i}]") for i, pin in enumerate(pins)]
        self._once((pin.name for pin in pins), at)
        return tuple(pin for pin in found if pin)

    def _base(self, base: _Base, minor: str, at: str) -> BasePin:
        packages = [self._package(pin, f"{at}.package[{i}]") for i, pin in enumerate(base.package)]
        self._once((f"{pin.name}:{pin.architecture}" for pin in base.package), f"{at}.package")
        built = base.reference.startswith("debian:") and base.digest is None
        if not base.reference or re.search(r"\s", base.reference):
            self._note(f"{at}.reference", f"{base.reference!r} is not a base")
        if built and not packages:
            self._note(f"{at}.package", "is empty")
        if not built and packages:
            self._note(f"{at}.package", "only debian:SUITE is made of packages")
        if not built and base.digest is None:
            self._note(f"{at}.digest", "is missing")
        place = _INTERPRETER.fullmatch(base.interpreter)
        if base.interpreter and (built or place is None or place[1] != minor):
            self._note(f"{at}.interpreter", f"{base.interpreter!r} is not where a base's Python is")
        digest = self._digest(base.digest, f"{at}.digest") if base.digest is not None else None
        return BasePin(
            reference=base.reference,
            digest=digest,
            interpreter=base.interpreter,
            packages=tuple(pin for pin in packages if pin),
        )

    def _wheel(self, pin: _Wheel, at: str) -> WheelPin | None:
        digest = self._file(pin, at)
        if not names.is_normalized(pin.name):
            self._note(f"{at}.name", f"{pin.name!r} is not a normalised name")
        fault = names.wheel_fault(pin.filename, pin.name, pin.version)
        if fault is not None:
            self._note(f"{at}.{fault[0]}", fault[1])
        self._plain(pin.filename, f"{at}.filename")
        if digest is None:
            return None
        return WheelPin(
            name=pin.name,
            version=pin.version,
            filename=pin.filename,
            size=pin.size,
            digest=digest,
        )

    def _package(self, pin: _Package, at: str) -> PackagePin | None:
        digest = self._file(pin, at)
        if not _DEBIAN_NAME.fullmatch(pin.name):
            self._note(f"{at}.name", f"{pin.name!r} is not a Debian package's name")
        if not _DEBIAN_VERSION.fullmatch(pin.version):
            self._note(f"{at}.version", f"{pin.version!r} is not a Debian version")
        if not re.fullmatch(r"[a-z0-9-]+", pin.architecture):
            self._note(f"{at}.architecture", f"{pin.architecture!r} is not an architecture")
        parts = pin.path.split("/")
        if not re.fullmatch(r"[\w.+~:%/-]+\.deb", pin.path) or {"", ".", ".."} & set(parts):
            self._note(f"{at}.path", f"{pin.path!r} is not a place in a mirror's pool")
        if digest is None:
            return None
        return PackagePin(
            name=pin.name,
            version=pin.version,
            architecture=pin.architecture,
            path=pin.path,
            size=pin.size,
            digest=digest,
        )

    def _data(self, pin: _Data, at: str) -> DataPin | None:
        digest = self._file(pin, at)
        path = PurePosixPath(pin.path)
        if (
            str(path) != pin.path
            or not path.is_absolute()
            or ".." in path.parts
            or "\0" in pin.path
        ):
            self._note(f"{at}.path", f"{pin.path!r} is not an absolute path")
        self._plain(pin.filename, f"{at}.filename")
        if digest is None:
            return None
        return DataPin(path=pin.path, filename=pin.filename, size=pin.size, digest=digest)

    def _plain(self, filename: str, at: str) -> None:
        if "/" in filename or "\0" in filename or filename in ("", ".", ".."):
            self._note(at, f"{filename!r} is not a plain file name")
