"""Compiles Python files of zip archives to bytecode. Runs by itself, under the image's Python.

Started as ``python -I -S compile_script.py JOB OUT ZIP...``: no import of torchship, nothing
but the standard library, since the Python is a container's. JOB is a JSON file::

    {"mode": "imported", "files": [[0, "pkg/a.py", "pkg/a.py", "/opt/.../pkg/a.py"], ...]}

with, for each source, the number of its ZIP, its member, its path below ``sys.path``, and its
path in the image. OUT becomes a zip of stored members: below each path in the image without
its slash, the bytecode of that source.

The bytes depend on nothing but the source, its path and the exact version of Python: marshal's
version 2 writes no back references, whose presence depends on reference counts. The header is
PEP 552's, unchecked and by hash, since files of an image have no times.
"""

import importlib.util
import json
import marshal
import opcode
import sys
import warnings
import zipfile
from collections.abc import Callable
from types import CodeType

_CO_OPTIMIZED = 1  # functions have it; modules and class bodies, which run on import, do not
_UNCHECKED = b"\x01\x00\x00\x00"  # PEP 552: hash-based (bit 0), not checked (bit 1 is clear)
_SMALL_INT = opcode.opmap.get("LOAD_SMALL_INT")  # Python 3.14


def compile_source(source: bytes, path: str) -> CodeType | None:
    """Compile as an import would; None where Python cannot, which pip passes over as well."""
    try:
        return compile(source, path, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


def bytecode(source: bytes, code: CodeType) -> bytes:
    """Return the content of the .pyc file."""
    digest = importlib.util.source_hash(source)
    return importlib.util.MAGIC_NUMBER + _UNCHECKED + digest + marshal.dumps(code, 2)


def imports(code: CodeType) -> list[tuple[int, str, tuple[str, ...]]]:
    """Return what runs on import: level, module and names of each, class bodies included.

    An import inside a function waits for its call; one under ``if TYPE_CHECKING`` is counted,
    which makes a few files more, never one less.
    """
    found = []
    constants: list[object] = [None, None]
    extended = 0
    raw = code.co_code
    for position in range(0, len(raw), 2):
        operation, argument = raw[position], raw[position + 1] | extended
        extended = 0
        if operation == opcode.EXTENDED_ARG:
            extended = argument << 8
        elif operation == opcode.opmap["LOAD_CONST"]:
            constants = [constants[1], code.co_consts[argument]]
        elif operation == _SMALL_INT:
            constants = [constants[1], argument]
        elif operation == opcode.opmap["IMPORT_NAME"]:
            level, names = constants
            assert isinstance(level, int)
            listed = names if isinstance(names, tuple) else ()
            found.append((level, code.co_names[argument], listed))
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and not constant.co_flags & _CO_OPTIMIZED:
            found += imports(constant)
    return found


class Modules:
    """The sources by module name, and which of them importing the roots would load."""

    def __init__(self, files: list[tuple[int, str, str, str]]) -> None:
        self.files = files
        self.index: dict[str, int] = {}
        self.packages: set[str] = set()
        for number, (_, _, below, _) in enumerate(files):
            name = below.removesuffix(".py").replace("/", ".")
            if below.endswith("/__init__.py"):
                name = name.removesuffix(".__init__")
                self.packages.add(name)
                self.index[name] = number  # a package hides a module of its name
            else:
                self.index.setdefault(name, number)

    def roots(self) -> list[str]:
        """Return the modules that stand in no package: what a program imports by name."""
        return sorted(
            name
            for name in self.index
            if not any(parent in self.packages for parent in parents(name))
        )

    def targets(self, name: str, code: CodeType) -> list[str]:
        """Return the modules of ours that a module imports, their packages included."""
        package = name if name in self.packages else name.rpartition(".")[0]
        found = []
        for level, module, names in imports(code):
            base = module
            if level:
                above = package.split(".")
                kept = above[: len(above) - level + 1]
                base = ".".join([*kept, module] if module else kept)
            found += [*parents(base), base, *(f"{base}.{listed}" for listed in names)]
        return [target for target in found if target in self.index]


def parents(name: str) -> list[str]:
    """Return the packages above a module, outermost first."""
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def follow(modules: Modules, compile_file: Callable[[int], CodeType | None]) -> None:
    """Compile the roots, and all that is imported from there."""
    waiting = modules.roots()
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        code = compile_file(modules.index[name])
        if code is not None:
            fresh = set(modules.targets(name, code)) - seen
            seen |= fresh
            waiting += sorted(fresh)


def main(job: str, out: str, zips: list[str]) -> None:
    """Compile what the job asks for, in the order of the paths in the image."""
    warnings.simplefilter("ignore")  # a wheel's invalid escapes are its author's concern
    with open(job, encoding="utf-8") as stream:  # noqa: PTH123 (pathlib is a slow import here)
        asked = json.load(stream)
    files = [tuple(file) for file in asked["files"]]
    archives = [zipfile.ZipFile(path) for path in zips]
    done: dict[str, bytes] = {}

    def compile_file(number: int) -> CodeType | None:
        archive, member, _, path = files[number]
        source = archives[archive].read(member)
        code = compile_source(source, path)
        if code is not None:
            done[path] = bytecode(source, code)
        return code

    if asked["mode"] == "all":
        for number in range(len(files)):
            compile_file(number)
    else:
        follow(Modules(files), compile_file)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(done):
            archive.writestr(zipfile.ZipInfo(path.lstrip("/")), done[path])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
