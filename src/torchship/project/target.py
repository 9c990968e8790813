"""What wheels must fit: a platform, its C library and a Python, as tags and markers say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from torchship.platform import Platform
from torchship.project.project import SUITES, minor

if TYPE_CHECKING:
    from packaging.tags import Tag

_GLIBC = {"bullseye": 31, "bookworm": 36, "trixie": 40}
_UNKNOWN_GLIBC = 28
_HIGHEST_GLIBC = 40  # the highest that uv has a name for; a base with a newer one takes less

# The oldest glibc of each architecture's wheels (PEP 600), and the names before that PEP.
_OLDEST = {"x86_64": 5, "aarch64": 17}
_LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}


class Target(Struct, frozen=True, kw_only=True):
    """A platform, a Python version (``3.11`` or ``3.11.2``), and the minor version of glibc 2."""

    platform: Platform
    python: str
    glibc: int

    @classmethod
    def of(cls, platform: Platform, python: str, base: str = "") -> Target:
        """Derive the C library from the base.

        A Debian suite's is known; others get one that all of today's have (glibc 2.28).
        """
        kind, _, suite = base.partition(":")
        glibc = _UNKNOWN_GLIBC
        if kind == "debian":
            glibc = _GLIBC.get(suite, _HIGHEST_GLIBC if suite not in SUITES else glibc)
        return cls(platform=platform, python=python, glibc=glibc)

    @classmethod
    def widest(cls, platform: Platform, python: str) -> Target:
        """Return the target that takes every wheel some lock may have pinned for the platform."""
        return cls(platform=platform, python=python, glibc=_HIGHEST_GLIBC)

    @property
    def minor(self) -> str:
        """The Python version as folders are named by it: ``3.11``."""
        return minor(self.python)

    @property
    def for_uv(self) -> str:
        """What uv's ``--python-platform`` takes."""
        # Of the levels below 2.28 uv names only 2.17; bases are never older than that.
        return f"{self.platform.machine}-manylinux_2_{self.glibc}"

    @property
    def tags(self) -> tuple[Tag, ...]:
        """Every tag of a compatible wheel, the best first (PEP 425, PEP 600)."""
        from packaging.tags import compatible_tags, cpython_tags

        version = tuple(int(part) for part in self.minor.split("."))
        interpreter, platforms = f"cp{self.minor.replace('.', '')}", list(self._platforms())
        native = cpython_tags(version, [interpreter], platforms)
        pure = compatible_tags(version, interpreter, platforms)
        return tuple(dict.fromkeys([*native, *pure]))

    @property
    def environment(self) -> Mapping[str, str]:
        """The values of environment markers on the target (PEP 508)."""
        full = self.python if self.python.count(".") == 2 else f"{self.python}.0"
        return {
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": "posix",
            "platform_machine": self.platform.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": full,
            "python_version": self.minor,
            "sys_platform": "linux",
        }

    def _platforms(self) -> Iterator[str]:
        machine = self.platform.machine
        for level in range(self.glibc, _OLDEST[machine] - 1, -1):
            yield f"manylinux_2_{level}_{machine}"
            if level in _LEGACY:
                yield f"{_LEGACY[level]}_{machine}"
        yield f"linux_{machine}"
