"""The platforms an image can be built for, and what each ecosystem calls them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from msgspec import Struct

from torchship.errors import UsageError

_ARCHITECTURES = {
    # OCI (GOARCH): (uname -m and wheel tags, GNU triplet)
    "amd64": ("x86_64", "x86_64-linux-gnu"),
    "arm64": ("aarch64", "aarch64-linux-gnu"),
}
_ALIASES = {"x86_64": "amd64", "aarch64": "arm64", "x86-64": "amd64", "arm64/v8": "arm64"}


class Platform(Struct, frozen=True, order=True):
    """An operating system and a processor architecture, in OCI's (Go's) words."""

    os: str
    architecture: str

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``linux/amd64``; ``x86_64`` and ``aarch64`` are taken for their Go names."""
        system, slash, architecture = text.partition("/")
        architecture = _ALIASES.get(architecture, architecture)
        if not slash or system != "linux" or architecture not in _ARCHITECTURES:
            known = ", ".join(f"linux/{name}" for name in _ARCHITECTURES)
            raise UsageError(f"platform {text!r} is not supported: use one of {known}")
        return cls(system, architecture)

    @classmethod
    def host(cls) -> Platform:
        """Return the platform whose images this machine can run: on a Mac, its Linux VM's."""
        return cls.parse(f"linux/{os.uname().machine}")

    @property
    def machine(self) -> str:
        """What ``uname -m`` and wheel tags say: ``x86_64``, ``aarch64``."""
        return _ARCHITECTURES[self.architecture][0]

    @property
    def triplet(self) -> str:
        """GNU's name, as in Debian's library folders: ``x86_64-linux-gnu``."""
        return _ARCHITECTURES[self.architecture][1]

    @property
    def debian(self) -> str:
        """Debian's name for the architecture, which is Go's for all that we support."""
        return self.architecture

    @property
    def is_host(self) -> bool:
        """True where programs for this platform start on this machine without emulation."""
        return sys.platform == "linux" and self == Platform.host()

    def as_json(self) -> Mapping[str, str]:
        """Return the ``platform`` object of an index entry (image-spec, image-index.md)."""
        return {"architecture": self.architecture, "os": self.os}

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"
