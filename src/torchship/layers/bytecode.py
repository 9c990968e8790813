"""Bytecode in layers of its own: without it, every fresh container compiles torch again.

The layers of wheels and of the base stay pure: these stand on top, and differ for each exact
version of Python, since two patch releases compile one source to different bytes. Why which
modules are compiled: docs/decisions/0004-bytecode.md.
"""

from __future__ import annotations

import marshal
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from torchship.amounts import counted
from torchship.digest import Digest, chunks
from torchship.errors import EngineError
from torchship.layers import prune
from torchship.layers.archive import Archive, Entry, Kind
from torchship.layers.layer import ORIGIN, Materials
from torchship.layers.layout import add_parents, site_packages
from torchship.project.lock import PackagePin, WheelPin
from torchship.project.project import minor

MODES = ("imported", "all", "none")
"""What is compiled: what importing loads; every file; nothing."""

WITHOUT = 'set bytecode = "none" in [tool.torchship]: the image starts slower, that is all'
"""What to do where the image's Python cannot be started."""

STANDARD = (
    # What the interpreter starts with, and what finding, running and warning of modules takes.
    *("codecs", "encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.utf_8"),
    *("importlib.metadata", "importlib.resources", "pkgutil", "runpy", "site", "sysconfig"),
    *("sitecustomize", "traceback", "tracemalloc", "warnings", "zipimport"),
    *("_sysconfigdata__aarch64-linux-gnu", "_sysconfigdata__x86_64-linux-gnu"),
    # What PyTorch imports: itself, for an optimiser, and for the processes of a DataLoader.
    *("argparse", "asyncio", "base64", "cProfile", "colorsys", "concurrent.futures.process"),
    *("concurrent.futures.thread", "csv", "ctypes.util", "ctypes.wintypes", "dataclasses"),
    *("decimal", "difflib"),
    *("fractions", "getpass", "gzip", "hmac", "inspect", "logging.handlers"),
    *("multiprocessing.managers", "multiprocessing.pool", "multiprocessing.popen_fork"),
    *("multiprocessing.popen_forkserver", "multiprocessing.popen_spawn_posix"),
    *("multiprocessing.queues", "multiprocessing.resource_sharer", "multiprocessing.spawn"),
    *("multiprocessing.synchronize", "pickletools", "pprint", "pstats", "queue", "tarfile"),
    *("timeit",),
    *("unittest.mock", "urllib.request", "uuid", "zipfile"),
    # What else the scripts of experiments import.
    *("calendar", "configparser", "fnmatch", "getopt", "glob", "graphlib", "hashlib", "json"),
    *("lzma", "mimetypes", "pathlib", "random", "secrets", "shlex", "statistics", "string"),
    *("tempfile", "textwrap", "tomllib", "unicodedata", "zoneinfo"),
)
"""The modules of the standard library that are compiled, with what importing them loads."""

_POLYFILLS = (
    "_collections builtins copy functools fx itertools operator os struct sys tensor torch_c_nn "
    "traceback"
)
LATER = {
    "torch": (
        *("torch._dynamo", "torch.onnx"),
        *(f"torch._dynamo.polyfills.{name}" for name in _POLYFILLS.split()),
    )
}
"""What training imports only when it begins, by distribution: roots beside its own packages.

torch's first optimizer imports them from inside functions, the polyfills by computed names.
"""

BROUGHT = {"torch": frozenset({"mpmath", "sympy", "typing-extensions"})}
"""Distributions that are compiled along with one that a project names: a training loads them."""

_ALONE = frozenset(LATER).union(*BROUGHT.values())
"""Distributions whose files no other is known to replace: their bytecode is never compared."""

_SCRIPT = Path(__file__).with_name("compile_script.py")
_SCRIPT_OLDER = Path(__file__).with_name("compile_older.py")
_HEAD = struct.Struct("<2I")  # before each file's bytecode: the source's number, the size
_STDLIB = re.compile(r"(?:usr/)?lib/python3[.0-9]*/(?P<below>.+\.py)")
_NEVER_IMPORTED = re.compile(
    r"(?:idlelib|lib2to3|pydoc_data|test|turtledemo)/|.*/tests?/"
    r"|_py(?:datetime|decimal|io)\.py"  # stand in for modules in C that Debian's Python has
)


class _Source(Struct, frozen=True, kw_only=True):
    """A source: where it is in which file, its path below sys.path, and that in the image.

    ``checked``: an import compares its bytecode with what then stands at that path.
    """

    file: int
    offset: int
    size: int
    deflated: bool
    below: str
    path: str
    checked: bool

    def row(self) -> tuple[int, int, int, bool, str, str, bool]:
        """Return what the compiler is told of it."""
        place = (self.file, self.offset, self.size, self.deflated)
        return (*place, self.below, self.path, self.checked)


class BytecodeRecipe(Struct, frozen=True, kw_only=True):
    """The bytecode of wheels. ``python`` is the base's full version, ``mode`` one of `MODES`.

    ``imported`` follows the imports that run when the wheels' own packages are imported, from
    wheel to wheel within the recipe. What Python cannot compile is left out, as pip does. Where a
    wheel of another recipe may replace a source, imports compare the two.
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
        return f"bytecode of {counted(len(self.wheels), 'wheel')}"

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
            "later": [module for pin in self._sorted() for module in LATER.get(pin.name, ())],
            "script": _script_digest(self.python),
        }

    @property
    def needs(self) -> tuple[Digest, ...]:
        """The wheels."""
        return tuple(pin.digest for pin in self._sorted())

    def write(self, archive: Archive, materials: Materials) -> None:
        """Compile on the interpreter, which must be of exactly the image's version."""
        # Imported here, as in the other recipes' `write`: most builds need no more than the key.
        from torchship.layers.compile_script import Modules
        from torchship.layers.zipdirectory import ZipFile, begin, read_directory

        site = site_packages(self.python)
        left_out = prune.matcher(self.prune)
        wheels = self._sorted()
        sources: dict[str, _Source] = {}
        for number, pin in enumerate(wheels):
            with closing(ZipFile(materials.files[pin.digest], pin.filename)) as wheel:
                # That its members are what the directory says is checked where the wheel's own
                # layer is made, without which there is no image.
                for record in read_directory(wheel).records:
                    below = _installed(record.name)
                    if below is None or not below.endswith(".py") or left_out(below):
                        continue
                    path = f"/{site}/{below}"
                    # Of two wheels with one path, the later is installed (layers/wheel.py).
                    sources[path] = _Source(
                        file=number,
                        offset=begin(wheel, record),
                        size=record.compressed,
                        deflated=record.method != 0,
                        below=below,
                        path=path,
                        checked=pin.name not in _ALONE,
                    )
        _compile(
            archive,
            materials,
            sources=list(sources.values()),
            files=[materials.files[pin.digest] for pin in wheels],
            roots=[
                *Modules([source.below for source in sources.values()]).top(),
                *(module for pin in wheels for module in LATER.get(pin.name, ())),
            ],
            mode=self.mode,
            python=self.python,
        )

    def _sorted(self) -> list[WheelPin]:
        return sorted(self.wheels, key=lambda pin: (pin.name, pin.filename))


class DebianBytecodeRecipe(Struct, frozen=True, kw_only=True):
    """The bytecode of the base's standard library, as its maintainer scripts would compile it.

    ``imported`` is what importing the modules of `STANDARD` loads; ``all`` leaves out what no
    program imports: IDLE, lib2to3, the tests.
    """

    packages: tuple[PackagePin, ...]
    python: str
    mode: str = "imported"

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
            "mode": self.mode,
            "roots": list(STANDARD),
            "script": _script_digest(self.python),
        }

    @property
    def needs(self) -> tuple[Digest, ...]:
        """The packages that hold the standard library."""
        return tuple(pin.digest for pin in self._libraries())

    def write(self, archive: Archive, materials: Materials) -> None:
        """Compile on the interpreter, which must be of exactly the image's version."""
        from tempfile import NamedTemporaryFile

        from torchship.layers.deb import open_deb

        with NamedTemporaryFile(dir=materials.scratch) as scratch:
            sources = []
            offset = 0
            for pin in self._libraries():
                deb = open_deb(materials.files[pin.digest], f"{pin.name} {pin.version}")
                for member in deb.members():
                    found = _STDLIB.fullmatch(member.path)
                    below = found["below"] if found else ""
                    if not below or _NEVER_IMPORTED.match(below) or member.kind is not Kind.FILE:
                        continue
                    scratch.writelines(member.content)
                    sources.append(
                        _Source(
                            file=0,
                            offset=offset,
                            size=member.size,
                            deflated=False,
                            below=below,
                            path=f"/{member.path}",
                            checked=False,
                        )
                    )
                    offset += member.size
            scratch.flush()
            _compile(
                archive,
                materials,
                sources=sources,
                files=[Path(scratch.name)],
                roots=STANDARD,
                mode=self.mode,
                python=self.python,
            )

    def _libraries(self) -> list[PackagePin]:
        version = minor(self.python)
        names = {f"libpython{version}-minimal", f"libpython{version}-stdlib"}
        return sorted((pin for pin in self.packages if pin.name in names), key=lambda pin: pin.name)


def _scripts(python: str) -> tuple[Path, ...]:
    """Return the script that compiles for a version of Python, before that another reads."""
    older = int(minor(python).partition(".")[2]) < 11
    return (_SCRIPT_OLDER, _SCRIPT) if older else (_SCRIPT,)


@cache
def _script_digest(python: str) -> str:
    return " ".join(str(Digest.of_file(script)) for script in _scripts(python))


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
    files: list[Path],
    roots: Sequence[str],
    mode: str,
    python: str,
) -> None:
    from tempfile import TemporaryDirectory

    if materials.interpreter is None:
        raise EngineError(
            f"bytecode for Python {python} needs that very Python, and none can be started here",
            hint=WITHOUT,
        )
    if mode not in MODES:
        raise EngineError(f"bytecode cannot be compiled in the mode {mode!r}")
    if mode == "none":
        sources = []
    with TemporaryDirectory(dir=materials.scratch) as folder:
        job, out = Path(folder, "job"), Path(folder, "bytecode")
        asked = {
            "roots": None if mode == "all" else list(roots),
            "sources": [source.row() for source in sources],
        }
        job.write_bytes(marshal.dumps(asked, 2))
        script, *read = _scripts(python)
        materials.interpreter.run(script, [str(path) for path in (*read, job, out, *files)])
        with out.open("rb") as compiled:
            _add(archive, compiled, sources, python)


def _add(archive: Archive, compiled: BinaryIO, sources: list[_Source], python: str) -> None:
    """Add the compiled files by their paths (PEP 3147: "PYC Repository Directories"), sorted."""
    tag = f"cpython-{minor(python).replace('.', '')}"
    found = dict(_answers(compiled, len(sources)))
    for number in sorted(found, key=lambda number: sources[number].path):
        folder, _, file = sources[number].path.removeprefix("/").rpartition("/")
        path = f"{folder}/__pycache__/{file.removesuffix('.py')}.{tag}.pyc"
        add_parents(archive, path)
        offset, size = found[number]
        compiled.seek(offset)
        archive.add(Entry(path=path, size=size), chunks(compiled, size))


def _answers(compiled: BinaryIO, count: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the number of each source that was compiled, with its bytecode's offset and size."""
    end = compiled.seek(0, os.SEEK_END)
    offset = 0
    while offset < end:
        compiled.seek(offset)
        head = compiled.read(_HEAD.size)
        if len(head) != _HEAD.size:
            raise EngineError("the compiler's answer is cut short")
        number, size = _HEAD.unpack(head)
        offset += _HEAD.size
        if number >= count or offset + size > end:
            raise EngineError("the compiler gave what it was not asked for")
        yield number, (offset, size)
        offset += size
