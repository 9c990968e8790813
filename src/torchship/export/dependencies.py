"""Which packages of an image need which others of it, as their metadata say.

Sources: Dependency specifiers (packaging.python.org); deb-control(5), "Depends", "Provides".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from packaging.markers import Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from torchship.export.contents import Installed
from torchship.export.packages import Package
from torchship.platform import Platform

_PYTHON = re.compile(r"/python(3\.\d+)/")


class Python:
    """The distributions of an image. What an extra of one would need is not looked for."""

    def __init__(self, found: Sequence[Installed], platform: Platform) -> None:
        self._platform = platform
        # Distributions see those of their own folder: vendored ones are another package's affair
        self._places = {(_folder(each), each.distribution.name): each for each in found}
        self._needs = {each: tuple(self._look(each)) for each in found}
        needed = {other for needs in self._needs.values() for other in needs}
        self.tops = tuple(each for each in found if each not in needed)
        """Those that no other one needs."""

    def needed(self, installed: Installed) -> tuple[Installed, ...]:
        """Return those of the image that a distribution requires."""
        return self._needs[installed]

    def _look(self, installed: Installed) -> Iterator[Installed]:
        folder = _folder(installed)
        version = _PYTHON.search(f"{folder}/")
        for text in installed.distribution.requires:
            try:
                requirement = Requirement(text)
            except (InvalidRequirement, RecursionError):  # thousands of parentheses
                continue
            other = self._places.get((folder, canonicalize_name(requirement.name)))
            if other is None or other is installed:
                continue
            if requirement.marker is None or self._holds(
                requirement.marker, version[1] if version else ""
            ):
                yield other

    def _holds(self, marker: Marker, python: str) -> bool:
        environment = {
            "extra": "",
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": self._platform.machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "sys_platform": "linux",
            **({"python_version": python, "python_full_version": f"{python}.0"} if python else {}),
        }
        try:
            return marker.evaluate(environment)
        except (UndefinedComparison, UndefinedEnvironmentName):
            return False  # it compares what cannot be compared: no tool would install it so


class Debian:
    """The Debian packages of an image."""

    def __init__(self, found: Sequence[Package]) -> None:
        self._named: dict[str, Package] = {}
        for package in found:
            for name in package.provides:
                self._named.setdefault(name, package)
        self._named.update((package.name, package) for package in found)
        self._needs = {package: tuple(self._look(package)) for package in found}
        needed = {other for needs in self._needs.values() for other in needs}
        self.tops = tuple(package for package in found if package not in needed)
        """Those that no other one needs."""

    def needed(self, package: Package) -> tuple[Package, ...]:
        """Return those of the image that a package depends on: of alternatives, the first."""
        return self._needs[package]

    def _look(self, package: Package) -> Iterator[Package]:
        for alternatives in package.depends:
            there = (self._named[name] for name in alternatives if name in self._named)
            other = next(there, package)
            if other is not package:
                yield other


def _folder(installed: Installed) -> str:
    return installed.location.rpartition("/")[0]
