"""Bytecode in layers of its own: without it, every fresh container compiles torch again.

The layers of wheels and of the base stay pure: these stand on top, and differ for each exact
version of Python, since two patch releases compile one source to different bytes. Why which
modules are compiled: docs/decisions/0004-bytecode.md.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from torchship import canonical
from torchship.digest import Digest
from torchship.errors import EngineError
from torchship.layers import compile_script, prune
from torchship.layers.archive import Archive, Entry, copy
from torchship.layers.deb import open_deb
from torchship.layers.layer import ORIGIN, Materials
from torchship.layers.layout import add_parents, minor, site_packages
from torchship.layers.wheelzip import WheelZip
from torchship.project.lock import PackagePin, WheelPin

MODES = ("imported", "all", "none")
"""What of the wheels is compiled: what importing them loads; every file; nothing."""

_SCRIPT = Path(compile_script.__file__)
_STDLIB = re.compile(r"(?:usr/)?lib/python3[.0-9]*/(?P<below>.+\.py)")
_NEVER_IMPORTED = re.compile(r"(?:idlelib|lib2to3|pydoc_data|test|turtledemo)/|.*/tests?/")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A source: which zip it is in and as which member, its path below sys.path, in the image."""

    archive: int
    member: str
    below: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BytecodeRecipe:
    """The bytecode of wheels. ``python`` is the base's full version, ``mode`` one of `MODES`.

    ``imported`` follows the imports that run when the wheels' own packages are imported, from
    wheel to wheel within the recipe. What Python cannot compile is left out, as pip does.
    """

    wheels: tuple[WheelPin, ...]
    prune: tuple[str, ...]
    python: str
    mode: str = "imported"

    @property
    def title(self) -> str:
        """What the layer holds, for people."""
        if len(self.wheels) == 1:
            return f"bytecode of {self.wheels[0].name} {self.wheels[0].version}"
        return f"bytecode of {len(self.wheels)} wheels"

    @property
    def origin(self) -> Mapping[str, str]:
        """Which Python compiled it."""
        return {ORIGIN: f"python:{self.python}"}

    @property
    def inputs(self) -> Mapping[str, object]:
        """All that the bytes depend on."""
        return {
            "wheels": sorted(str(pin.digest) for pin in self.wheels),
            "prune": list(self.prune),
            "python": self.python,
            "mode": self.mode,
            "script": _script_digest(),
        }

    @property
    def needs(self) -> tuple[Digest, ...]:
        """The wheels."""
        return tuple(pin.digest for pin in self._sorted())

    def write(self, archive: Archive, materials: Materials) -> None:
        """Compile on the interpreter, which must be of exactly the image's version."""
        site = site_packages(self.python)
        left_out = prune.matcher(self.prune)
        wheels = self._sorted()
        sources: dict[str, _Source] = {}
        for number, pin in enumerate(wheels):
            with WheelZip(materials.files[pin.digest], pin.filename) as wheel:
                names = [member.name for member in wheel.members]
            for name in names:
                below = _installed(name)
                if below is not None and below.endswith(".py") and not left_out(below):
                    path = f"/{site}/{below}"
                    # Of two wheels with one path, the later is installed (layers/wheel.py).
                    sources[path] = _Source(archive=number, member=name, below=below, path=path)
        zips = [materials.files[pin.digest] for pin in wheels]
        _compile(
            archive,
            materials,
            sources=list(sources.values()),
            zips=zips,
            mode=self.mode,
            python=self.python,
        )

    def _sorted(self) -> list[WheelPin]:
        return sorted(self.wheels, key=lambda pin: (pin.name, pin.filename))


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianBytecodeRecipe:
    """The bytecode of the base's standard library, as its maintainer scripts would compile it.

    All of it but what no program imports: IDLE, lib2to3, the tests.
    """

    packages: tuple[PackagePin, ...]
    python: str

    @property
    def title(self) -> str:
        """What the layer holds, for people."""
        return f"bytecode of Python {self.python}"

    @property
    def origin(self) -> Mapping[str, str]:
        """Which Python compiled it."""
        return {ORIGIN: f"python:{self.python}"}

    @property
    def inputs(self) -> Mapping[str, object]:
        """All that the bytes depend on."""
        return {
            "packages": [str(pin.digest) for pin in self._libraries()],
            "python": self.python,
            "script": _script_digest(),
        }

    @property
    def needs(self) -> tuple[Digest, ...]:
        """The packages that hold the standard library."""
        return tuple(pin.digest for pin in self._libraries())

    def write(self, archive: Archive, materials: Materials) -> None:
        """Compile on the interpreter, which must be of exactly the image's version."""
        with tempfile.NamedTemporaryFile(dir=materials.scratch, suffix=".zip") as scratch:
            sources = []
            with zipfile.ZipFile(scratch, "w", zipfile.ZIP_STORED) as sink:
                for pin in self._libraries():
                    deb = open_deb(materials.files[pin.digest], f"{pin.name} {pin.version}")
                    for member in deb.members():
                        found = _STDLIB.fullmatch(member.path)
                        below = found["below"] if found else ""
                        if not below or _NEVER_IMPORTED.match(below) or member.content is None:
                            continue
                        with sink.open(zipfile.ZipInfo(member.path), "w") as written:
                            for piece in copy(cast(BinaryIO, member.content), member.size):
                                written.write(piece)
                        path = f"/{member.path}"
                        sources.append(
                            _Source(archive=0, member=member.path, below=below, path=path)
                        )
            scratch.flush()
            _compile(
                archive,
                materials,
                sources=sources,
                zips=[Path(scratch.name)],
                mode="all",
                python=self.python,
            )

    def _libraries(self) -> list[PackagePin]:
        version = minor(self.python)
        names = {f"libpython{version}-minimal", f"libpython{version}-stdlib"}
        return sorted((pin for pin in self.packages if pin.name in names), key=lambda pin: pin.name)


@cache
def _script_digest() -> str:
    return str(Digest.of_file(_SCRIPT))


def _installed(member: str) -> str | None:
    """Return where below site-packages a wheel's member is installed, None if elsewhere.

    Source: the wheel specification, "Installing a wheel": .data/purelib and .data/platlib are
    spread over the same folder as the wheel's root.
    """
    top, slash, rest = member.partition("/")
    if not slash or not top.endswith(".data"):
        return member
    scheme, _, below = rest.partition("/")
    return below if scheme in ("purelib", "platlib") and below else None


def _compile(
    archive: Archive,
    materials: Materials,
    *,
    sources: list[_Source],
    zips: list[Path],
    mode: str,
    python: str,
) -> None:
    if materials.interpreter is None:
        raise EngineError(
            f"bytecode for Python {python} needs that very Python, and none can be started here",
            hint='set bytecode = "none" in [tool.torchship]: the image starts slower, that is all',
        )
    if mode not in MODES:
        raise EngineError(f"bytecode cannot be compiled in the mode {mode!r}")
    if mode == "none":
        sources = []
    with tempfile.TemporaryDirectory(dir=materials.scratch) as folder:
        job, out = Path(folder, "job.json"), Path(folder, "bytecode.zip")
        files = [[source.archive, source.member, source.below, source.path] for source in sources]
        job.write_bytes(canonical.encode({"mode": mode, "files": files}))
        materials.interpreter.run(_SCRIPT, [str(path) for path in (job, out, *zips)])
        _add(archive, out, {source.path.lstrip("/") for source in sources}, python)


def _add(archive: Archive, out: Path, asked: set[str], python: str) -> None:
    with zipfile.ZipFile(out) as compiled:
        for info, path in _targets(compiled.infolist(), asked, python):
            add_parents(archive, path)
            with compiled.open(info) as stream:
                archive.add(
                    Entry(path=path, size=info.file_size),
                    copy(cast(BinaryIO, stream), info.file_size),
                )


def _targets(
    infos: Iterable[zipfile.ZipInfo], asked: set[str], python: str
) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """Yield each compiled file with its path (PEP 3147: "PYC Repository Directories"), sorted."""
    tag = f"cpython-{minor(python).replace('.', '')}"
    for info in sorted(infos, key=lambda info: info.filename):
        if info.filename not in asked:
            raise EngineError(f"the compiler gave {info.filename!r}, which it was not asked for")
        source = PurePosixPath(info.filename)
        yield info, str(source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc")
