"""Handing environment variables to a container so that no list of processes shows them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from msgspec import Struct, field

from torchship.errors import EngineError

_LONGEST = 60_000  # docker reads the file by lines of at most 64 KiB
_CLIENT = ("DOCKER_", "CONTAINER", "PODMAN", "XDG_", "LD_", "SSL_", "SSH_", "GO", "REGISTRY_")
_CLIENT_NAMES = frozenset({"PATH", "HOME", "USER", "TMPDIR", "STORAGE_DRIVER", "STORAGE_OPTS"})


class Variables(Struct, frozen=True, kw_only=True):
    """Words for ``run``, the descriptors that they name, and what the client's environment gets."""

    words: tuple[str, ...]
    descriptors: tuple[int, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@contextmanager
def variables(asked: Mapping[str, str]) -> Iterator[Variables]:
    """Yield how to set variables in a container. Values never stand on a command line.

    They go through a file without a name. What its lines cannot hold, a value of several lines,
    goes through the client's own environment; `EngineError` for one that the client would read.
    """
    lines = {name: value for name, value in asked.items() if _fits(name, value)}
    others = {name: value for name, value in asked.items() if name not in lines}
    for name in others:
        if name in _CLIENT_NAMES or name.startswith(_CLIENT) or name.lower().endswith("_proxy"):
            raise EngineError(
                f"the variable {name} has a value of several lines or of more than "
                f"{_LONGEST} bytes, which this engine cannot pass on under that name",
                hint="give it a value of one line, or use --engine native",
            )
    with tempfile.TemporaryFile() as file:
        file.write("".join(f"{name}={value}\n" for name, value in lines.items()).encode())
        file.seek(0)
        words = ["--env-file", f"/dev/fd/{file.fileno()}"] if lines else []
        for name in others:
            words += ["--env", name]
        yield Variables(words=tuple(words), descriptors=(file.fileno(),), environment=others)


def _fits(name: str, value: str) -> bool:
    """Tell whether a line ``NAME=VALUE`` is read as just that."""
    try:
        size = len(f"{name}={value}".encode())
    except UnicodeEncodeError:  # bytes that are no text, as the command line hands them on
        return False
    return size < _LONGEST and "\n" not in value and "\r" not in value and name[:1] not in "# \t"
