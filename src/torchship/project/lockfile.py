"""``torchship.lock`` on disk: TOML that is sorted, checked in every field, and whole.

A lock travels through merges and editors, and is made of names that end in paths: nothing
in it is believed before it has been checked. ``checksum`` covers all the rest, so that a lock
that was cut off between two entries, or changed by hand, is told from one that is whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import msgspec
import tomli_w
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from torchship import canonical
from torchship.digest import Digest
from torchship.errors import InvalidDigest, LockError, UsageError
from torchship.platform import Platform
from torchship.project import tables, textfile
from torchship.project.lock import (
    VERSION,
    BasePin,
    DataPin,
    Lock,
    PackagePin,
    PlatformLock,
    WheelPin,
)

HEADER = (
    "# Made by `torchship lock`; change the requirements and run it again instead of editing.\n"
    "# Every file of the image, by sha256: commit it, so that the image can be made again.\n\n"
)
MEND = "run `torchship lock` to make it afresh"

_LARGEST = 1 << 40  # bytes; a lock that states more is damaged
_DEBIAN_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_DEBIAN_VERSION = re.compile(r"[A-Za-z0-9.+~:-]+")
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
    package: tuple[_Package, ...] = ()


class _Platform(tables.Table):
    platform: str
    python: str
    base: _Base
    wheel: tuple[_Wheel, ...] = ()


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


def read(path: Path) -> Lock:
    """Read and check a lock; raise `LockError` that names the path to every fault."""
    if not path.is_file():
        raise LockError(f"there is no {path.name} in {path.parent}", hint="run `torchship lock`")
    try:
        document = tables.parse(path, LockError)
    except LockError as error:
        raise LockError(f"{error.message}; it is damaged or cut off", hint=MEND) from None
    if document.get("version") != VERSION:
        _refuse_version(document, path)
    issues: list[str] = []
    shape = tables.read(_Lock, document, "", issues)
    found = _Checker(issues).lock(shape) if shape is not None else None
    if found is None or issues:
        more = f" (and {len(issues) - 5} more)" if len(issues) > 5 else ""
        shown = "; ".join(issues[:5])
        raise LockError(f"{path.name} is damaged: {shown}{more}", hint=MEND)
    if _checksum(document) != document["checksum"]:
        raise LockError(
            f"{path.name} is cut off or was edited by hand: its content does not fit its checksum",
            hint=MEND,
        )
    return found


def write(lock: Lock, path: Path) -> None:
    """Write the lock beside ``path``, then put it in place: a reader never sees half of it."""
    document = _document(lock)
    document["checksum"] = _checksum(document)
    ordered = {key: document[key] for key in ("version", "created", "inputs", "checksum")}
    text = HEADER + tomli_w.dumps({**ordered, **document})
    textfile.write(path, text, LockError)


def inputs(resolved_from: Mapping[str, str]) -> Digest:
    """Return the digest of what a lock was resolved from."""
    return Digest.of(canonical.encode(dict(resolved_from)))


def _checksum(document: Mapping[str, object]) -> str:
    rest = {key: value for key, value in document.items() if key != "checksum"}
    created = rest.get("created")
    if isinstance(created, datetime):
        rest["created"] = created.astimezone(UTC).isoformat()
    return str(Digest.of(canonical.encode(rest)))


def _refuse_version(document: Mapping[str, object], path: Path) -> None:
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise LockError(
            f"{path.name} has format {version}; this torchship reads format {VERSION}",
            hint="upgrade torchship",
        )
    raise LockError(f"{path.name} is damaged: version: expected {VERSION}", hint=MEND)


def _document(lock: Lock) -> dict[str, object]:
    created = lock.created.astimezone(UTC).replace(microsecond=0)
    document: dict[str, object] = {
        "version": VERSION,
        "created": created,
        "inputs": str(lock.inputs),
        "resolved-from": dict(sorted(lock.resolved_from.items())),
        "platform": [
            _platform(entry) for entry in sorted(lock.platforms, key=lambda entry: entry.platform)
        ],
    }
    if lock.data:
        document["data"] = [
            {"path": pin.path, "filename": pin.filename, "size": pin.size, "sha256": pin.digest.hex}
            for pin in sorted(lock.data, key=lambda pin: pin.path)
        ]
    return document


def _platform(entry: PlatformLock) -> dict[str, object]:
    base: dict[str, object] = {"reference": entry.base.reference}
    if entry.base.digest is not None:
        base["digest"] = str(entry.base.digest)
    if entry.base.packages:
        base["package"] = [
            {
                "name": pin.name,
                "version": pin.version,
                "architecture": pin.architecture,
                "path": pin.path,
                "size": pin.size,
                "sha256": pin.digest.hex,
            }
            for pin in sorted(entry.base.packages, key=lambda pin: (pin.name, pin.architecture))
        ]
    document: dict[str, object] = {
        "platform": str(entry.platform),
        "python": entry.python,
        "base": base,
    }
    if entry.wheels:
        document["wheel"] = [
            {
                "name": pin.name,
                "version": pin.version,
                "filename": pin.filename,
                "size": pin.size,
                "sha256": pin.digest.hex,
            }
            for pin in sorted(entry.wheels, key=lambda pin: pin.name)
        ]
    return document


class _Checker:
    """Turns a lock's typed fields into checked values, noting each fault by its path."""

    def __init__(self, issues: list[str]) -> None:
        self._issues = issues

    def lock(self, shape: _Lock) -> Lock | None:
        """Return the lock, or None where anything was noted."""
        platforms = [
            self._platform(entry, f"platform[{i}]") for i, entry in enumerate(shape.platform)
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
            platforms=tuple(entry for entry in platforms if entry),
            data=tuple(pin for pin in data if pin),
            resolved_from=MappingProxyType(dict(shape.resolved_from)),
        )

    def _note(self, at: str, fault: str) -> None:
        self._issues.append(f"{at}: {fault}")

    def _once(self, names: Iterable[str], at: str) -> None:
        seen: set[str] = set()
        for i, name in enumerate(names):
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

    def _platform(self, entry: _Platform, at: str) -> PlatformLock | None:
        platform = None
        try:
            platform = Platform.parse(entry.platform)
        except UsageError as error:
            self._note(f"{at}.platform", error.message)
        if not _PYTHON.fullmatch(entry.python):
            self._note(f"{at}.python", f"{entry.python!r} is not a version such as 3.11.2")
        base = self._base(entry.base, f"{at}.base")
        wheels = [self._wheel(pin, f"{at}.wheel[{i}]") for i, pin in enumerate(entry.wheel)]
        self._once((pin.name for pin in entry.wheel), f"{at}.wheel")
        if platform is None:
            return None
        return PlatformLock(
            platform=platform,
            python=entry.python,
            base=base,
            wheels=tuple(pin for pin in wheels if pin),
        )

    def _base(self, base: _Base, at: str) -> BasePin:
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
        digest = self._digest(base.digest, f"{at}.digest") if base.digest is not None else None
        return BasePin(
            reference=base.reference,
            digest=digest,
            packages=tuple(pin for pin in packages if pin),
        )

    def _wheel(self, pin: _Wheel, at: str) -> WheelPin | None:
        digest = self._file(pin, at)
        if canonicalize_name(pin.name) != pin.name or not re.fullmatch(r"[a-z0-9-]+", pin.name):
            self._note(f"{at}.name", f"{pin.name!r} is not a normalised name")
        try:
            name, version, _, _ = parse_wheel_filename(pin.filename)
            if (name, version) != (pin.name, Version(pin.version)):
                self._note(f"{at}.filename", f"{pin.filename!r} is not {pin.name} {pin.version}")
        except InvalidVersion:
            self._note(f"{at}.version", f"{pin.version!r} is not a version")
        except InvalidWheelFilename:
            self._note(f"{at}.filename", f"{pin.filename!r} is not a wheel's name")
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
