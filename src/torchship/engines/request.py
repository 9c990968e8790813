"""What an engine is asked to run, the same for all of them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct, field

from torchship.engines.gpu import Gpus
from torchship.errors import UsageError
from torchship.oci.image import Image
from torchship.progress import SILENT, Progress


class Mount(Struct, frozen=True, kw_only=True):
    """A file or folder of the host that the container sees. ``target`` is absolute."""

    source: Path
    target: str
    read_only: bool = False

    @classmethod
    def parse(cls, text: str) -> Mount:
        """Read ``SRC:DST[:ro]`` as Docker's ``-v`` does; raise `UsageError`.

        A relative source starts at the working directory. What does not exist is an error:
        Docker would make a folder of that name, which hides a mistyped path.
        """
        source, _, rest = text.partition(":")
        target, _, mode = rest.partition(":")
        if not source or not target.startswith("/") or mode not in ("", "ro", "rw"):
            raise UsageError(
                f"mount {text!r} is not of the form SRC:DST[:ro]",
                hint="name a path of this machine and an absolute path of the container, "
                "such as ./data:/data:ro",
            )
        if ".." in target.split("/") or target.strip("/") == "":
            raise UsageError(f"mount {text!r}: {target} is no place for a mount")
        place = posixpath.normpath(target)
        if re.fullmatch(r"/+(?:proc|sys)(?:/.*)?|/+dev", place, re.DOTALL):
            raise UsageError(
                f"mount {text!r}: {place} is the kernel's in a container",
                hint="name another place, such as /data",
            )
        path = Path(source).expanduser().absolute()
        if not path.exists():
            raise UsageError(f"mount {text!r}: there is no {path}")
        return cls(source=path, target=target, read_only=mode == "ro")


class Request(Struct, frozen=True, kw_only=True):
    """One run of an image.

    ``command`` replaces the image's own where it is not empty; ``environment`` is set on top
    of the image's, and nothing else of the caller's environment is seen inside. ``output`` is
    an existing folder of the caller's that is `OUTPUT` inside. ``processors`` counts
    processors, ``memory`` is in bytes. ``log`` is a file that gets every byte which the
    program prints; ``stdout`` and ``stderr`` are the descriptors that get them as well. ``gpus``
    is decided: never ``auto``.
    """

    image: Image
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    mounts: tuple[Mount, ...] = ()
    output: Path | None = None
    network: bool = False
    interactive: bool = False
    tty: bool = False
    processors: float | None = None
    memory: int | None = None
    gpus: Gpus = field(default_factory=Gpus)
    log: Path | None = None
    stdout: int = 1
    stderr: int = 2


class Engine(Protocol):
    """What runs images."""

    @property
    def name(self) -> str:
        """``native``, ``docker`` or ``podman``."""

    def missing(self) -> str | None:
        """Say in one sentence why the engine cannot be used here; None: it can."""

    def prepare(self, image: Image, *, progress: Progress = SILENT) -> None:
        """Bring an image to where the engine runs it from; `run` does so where nobody has."""

    def run(self, request: Request) -> int:
        """Run to the end and return the program's exit status: 128 + N after signal N.

        Raises `EngineError` where the program could not be started.
        """
