"""A Python of exactly the image's version, to compile its bytecode with.

Three ways to one, in this order. One of this machine, where its version is the same to the last
number. The base's own, in a sandbox. And where the machine allows no user namespaces,
the base's own without one: it is then started by the base's own dynamic loader, as the caller.
That is only done for a base of Debian packages, whose bytes the lock pins by sha256 and which
apt verified by Debian's signature when it was made: that Python is as trustworthy as any
program that the caller installs, and all it is given is a script of torchship's own.
"""

from __future__ import annotations

import os
import platform as host
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from msgspec import Struct

from torchship.engines import container, namespaces, unpack
from torchship.engines.container import Bind, Container
from torchship.engines.relay import StartError, Streams
from torchship.errors import EngineError
from torchship.layers.bytecode import WITHOUT
from torchship.layers.layer import Interpreter, Layer
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.project.project import minor

_CLEAN = {"LC_ALL": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONHASHSEED": "0"}
_TOLD = 2000  # characters of what a failed script printed that its error repeats


class HostPython(Struct, frozen=True):
    """A Python of this machine: that which runs torchship, unless another is named."""

    program: str = sys.executable

    def run(self, script: Path, arguments: Sequence[str]) -> None:
        """Run a script, isolated, with a clean environment."""
        command = [self.program, "-I", "-S", str(script), *arguments]
        _checked(script, command, _CLEAN)


class BasePython(Struct, frozen=True, kw_only=True):
    """The Python of unpacked layers, in a sandbox that sees nothing but its arguments' files."""

    layers: tuple[Path, ...]
    program: str
    scratch: Path

    def run(self, script: Path, arguments: Sequence[str]) -> None:
        """Run a script; what its arguments name is read-only, unless it is not there yet."""
        binds = [Bind(source=script, target="/run/script.py", read_only=True)]
        inside = []
        for place, argument in enumerate(arguments):
            path = Path(argument)
            if not path.is_absolute():
                inside.append(argument)
            elif path.exists():
                target = f"/run/{place}/{path.name}"
                binds.append(Bind(source=path, target=target, read_only=True))
                inside.append(target)
            else:
                binds.append(Bind(source=path.parent, target=f"/run/{place}", read_only=False))
                inside.append(f"/run/{place}/{path.name}")
        box = Container(
            layers=self.layers,
            command=(self.program, "-I", "-S", "/run/script.py", *inside),
            scratch=self.scratch,
            environment=_CLEAN,
            binds=tuple(binds),
        )
        with tempfile.TemporaryFile() as said:
            try:
                status = container.run(box, Streams(stdout=said.fileno(), stderr=said.fileno()))
            except StartError as error:
                raise EngineError(
                    f"the base's Python could not be started: {error.detail}", hint=WITHOUT
                ) from error
            said.seek(0)
            _check(script, status, said.read().decode("utf-8", "replace"))


class LoadedPython(Struct, frozen=True, kw_only=True):
    """The Python of one unpacked Debian base, started by its own dynamic loader, as the caller."""

    root: Path
    version: str
    platform: Platform

    def run(self, script: Path, arguments: Sequence[str]) -> None:
        """Run a script, isolated, with a clean environment."""
        usr = self.root / "usr"
        loaders = sorted((usr / "lib" / self.platform.triplet).glob("ld-linux-*.so.*"))
        if not loaders:
            raise EngineError(f"the base at {self.root} has no dynamic loader")
        libraries = usr / "lib" / self.platform.triplet
        program = usr / "bin" / f"python{minor(self.version)}"
        # -E and -I would ignore PYTHONHOME, without which it takes the host's library for its
        # own, and PYTHONSAFEPATH, which Python 3.11 has; -P is an error before that.
        command = [
            *(str(loaders[0]), "--library-path", str(libraries), str(program)),
            *("-s", "-S", str(script), *arguments),
        ]
        _checked(script, command, {**_CLEAN, "PYTHONHOME": str(usr), "PYTHONSAFEPATH": "1"})


@cache
def on_host(version: str) -> Interpreter | None:
    """Return a Python of this machine that is exactly that CPython; None where there is none."""
    if (host.python_implementation(), host.python_version()) == ("CPython", version):
        return HostPython(sys.executable)
    asked = "import platform as p; print(p.python_implementation(), p.python_version())"
    folders = os.pathsep.join((os.environ.get("PATH", ""), os.defpath))
    program = shutil.which(f"python{minor(version)}", path="/usr/bin") or shutil.which(
        f"python{minor(version)}", path=folders
    )
    if program is None:
        return None
    try:
        answer = subprocess.run(
            [program, "-I", "-S", "-c", asked],
            env=_CLEAN, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None  # a broken link or a shim: there are other ways
    return HostPython(program) if answer.stdout.split() == ["CPython", version] else None


def interpreter_for(version: str, *, base: Sequence[Layer], store: Store) -> Interpreter:
    """Return an interpreter of exactly ``version`` (such as ``3.11.2``).

    ``base`` are the layers, lowest first, that hold it for this machine's platform. They are
    unpacked where they are needed. Raises `EngineError` where there is none.
    """
    here = on_host(version)
    if here is not None:
        return here
    platform = Platform.host()
    if not platform.is_host:
        raise EngineError(
            f"this machine ({sys.platform}) cannot start Python {version} for {platform}, and "
            f"has no Python {version} of its own to compile bytecode with",
            hint=WITHOUT,
        )
    if not base:
        raise EngineError(f"there is no Python {version} here, and no base that has one")
    found = namespaces.obstacle()
    if found is not None and len(base) > 1:
        raise _not_started(version, found)
    layers = unpack.unpack_all(base, lambda layer: store.open_blob(layer.digest), store.unpacked)
    if found is None:
        return BasePython(
            layers=layers,
            program=f"python{minor(version)}",
            scratch=store.home / "scratch",
        )
    root = layers[0]
    if (root / "var/lib/dpkg/status").is_file() and os.access(root, os.X_OK):
        return LoadedPython(root=root, version=version, platform=platform)
    raise _not_started(version, found)


def _not_started(version: str, found: namespaces.Obstacle) -> EngineError:
    return EngineError(
        f"bytecode needs the base's Python {version}, which cannot be started: {found.reason}",
        hint=f"{WITHOUT}; or install Python {version} here, or see `torchship doctor` for what "
        "keeps containers from starting",
    )


def _checked(script: Path, command: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    _check(script, done.returncode, done.stdout)


def _check(script: Path, status: int, said: str) -> None:
    if status:
        tail = said.strip()[-_TOLD:]
        raise EngineError(f"{script.name} failed with status {status}: {tail or 'it said nothing'}")
