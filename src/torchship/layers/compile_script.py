"""Compiles Python sources to bytecode. Runs by itself, under the image's Python.

Started as ``python -I -S compile_script.py JOB OUT FILE...``: no import of torchship, nothing
but the standard library, since the Python is a container's. JOB is, as marshal writes it, since
to import JSON takes as long as to start::

    {"roots": ["pkg"], "sources": [(0, 1234, 567, True, "pkg/a.py", "/opt/.../pkg/a.py", False)]}

with, for each source, the number of the FILE that holds it, where its bytes begin there and how
many they are, whether they are deflated (RFC 1951), its path below ``sys.path``, its path in
the image, and whether imports shall compare the bytecode with its source. What importing the
roots loads is compiled; everything, where they are None. OUT becomes, for each source that was
compiled, its number and the size of its bytecode (4 bytes each, little-endian), and the
bytecode.

The bytes depend on nothing but the source, its path and the exact version of Python: marshal's
version 2 writes no back references, whose presence depends on reference counts. The header is
PEP 552's, by hash, since files of an image have no times.

It is one process: a build makes as many layers at once as there are processors.
"""

from __future__ import annotations

import gc
import importlib.util
import marshal
import opcode
import os
import struct
import sys
import warnings
import zlib
from types import CodeType

_CO_OPTIMIZED = 1  # functions have it; modules and class bodies, which run on import, do not
_UNCHECKED = b"\x01\x00\x00\x00"  # PEP 552: hash-based (bit 0), not checked (bit 1 is clear)
_CHECKED = b"\x03\x00\x00\x00"
_NO_VALUE = {opcode.opmap[name] for name in ("CACHE", "TO_BOOL", "NOP") if name in opcode.opmap}
_JUMPS_IF_FALSE = {
    opcode.opmap[name]
    for name in ("POP_JUMP_FORWARD_IF_FALSE", "POP_JUMP_IF_FALSE")
    if name in opcode.opmap
}
_LOADS = {opcode.opmap["LOAD_ATTR"], opcode.opmap["LOAD_NAME"]}
_ATTRIBUTE_SHIFT = 1 if sys.version_info >= (3, 12) else 0  # its low bit marks a method call
_SMALL_INT = opcode.opmap.get("LOAD_SMALL_INT")  # Python 3.14
_IMPORT_NAME = opcode.opmap["IMPORT_NAME"]
_LIMIT = 64 << 20  # bytes of one source; a wheel's directory may state anything


def compile_source(source: bytes, path: str) -> CodeType | None:
    """Compile as an import would; None where Python cannot, which pip passes over as well."""
    try:
        return compile(source, path, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


def bytecode(source: bytes, code: CodeType, flags: bytes) -> bytes:
    """Return the content of the .pyc file."""
    digest = importlib.util.source_hash(source)
    return importlib.util.MAGIC_NUMBER + flags + digest + marshal.dumps(code, 2)


class Instructions:
    """The instructions of a module's body or a class's, by their places: 0, 1, 2..."""

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.operations = code.co_code[::2]  # each has an opcode and an argument of one byte
        self.arguments = code.co_code[1::2]

    def begin(self, place: int) -> int:
        """Return where an instruction begins, with the prefixes that extend its argument."""
        while place and self.operations[place - 1] == opcode.EXTENDED_ARG:
            place -= 1
        return place

    def argument(self, place: int) -> int:
        """Return an instruction's argument, whole."""
        return int.from_bytes(self.arguments[self.begin(place) : place + 1], "big")

    def constant(self, place: int) -> object:
        """Return the constant that an instruction loads."""
        argument = self.argument(place)
        return argument if self.operations[place] == _SMALL_INT else self.code.co_consts[argument]

    def loads_type_checking(self, place: int) -> bool:
        """Tell whether one of `_LOADS` loads ``TYPE_CHECKING`` or ``typing.TYPE_CHECKING``."""
        argument = self.argument(place)
        if self.operations[place] == opcode.opmap["LOAD_ATTR"]:
            argument >>= _ATTRIBUTE_SHIFT
        return self.code.co_names[argument] == "TYPE_CHECKING"

    def for_type_checkers(self) -> list[range]:
        """Return the blocks under ``if TYPE_CHECKING:``."""
        if "TYPE_CHECKING" not in self.code.co_names:
            return []
        found = []
        tested = False  # the value that a jump would test is TYPE_CHECKING
        for place, operation in enumerate(self.operations):
            if operation in _NO_VALUE:
                continue
            if tested and operation in _JUMPS_IF_FALSE:  # relative, in instructions
                found.append(range(place, place + 1 + self.argument(place)))
            tested = operation in _LOADS and self.loads_type_checking(place)
        return found


def imports(code: CodeType) -> list[tuple[int, str, tuple[str, ...]]]:
    """Return what runs on import: level, module and names of each, class bodies included.

    An import inside a function waits for its call, and one under ``if TYPE_CHECKING:`` is for
    type checkers: neither runs when the module is imported.
    """
    found = []
    body = Instructions(code)
    place = body.operations.find(_IMPORT_NAME)
    skipped = body.for_type_checkers() if place >= 0 else []
    while place >= 0:
        if not any(place in block for block in skipped):
            # Its operands are loaded by the two instructions before it: level, then names.
            second = body.begin(place) - 1
            level, names = body.constant(body.begin(second) - 1), body.constant(second)
            assert isinstance(level, int)
            listed = names if isinstance(names, tuple) else ()
            found.append((level, code.co_names[body.argument(place)], listed))
        place = body.operations.find(_IMPORT_NAME, place + 1)
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and not constant.co_flags & _CO_OPTIMIZED:
            found += imports(constant)
    return found


class Modules:
    """The sources by module name, and which of them importing a module would load."""

    def __init__(self, paths: list[str]) -> None:
        self.index: dict[str, int] = {}
        self.names: list[str] = []
        self.packages: set[str] = set()
        for number, below in enumerate(paths):
            name = below.removesuffix(".py").replace("/", ".")
            if below.endswith("/__init__.py"):
                name = name.removesuffix(".__init__")
                self.packages.add(name)
                self.index[name] = number  # a package hides a module of its name
            else:
                self.index.setdefault(name, number)
            self.names.append(name)

    def top(self) -> list[str]:
        """Return the modules that stand in no package: what a program imports by name."""
        return [
            name
            for name in self.index
            if not any(parent in self.packages for parent in parents(name))
        ]

    def loaded(self, names: list[str]) -> set[int]:
        """Return the sources that importing modules by their full names loads first of all."""
        wanted = {part for name in names for part in (*parents(name), name)}
        return {self.index[name] for name in wanted if name in self.index}

    def imported(self, number: int, code: CodeType) -> set[int]:
        """Return the sources that a module imports, their packages included."""
        name = self.names[number]
        package = name if name in self.packages else name.rpartition(".")[0]
        found = []
        for level, module, names in imports(code):
            base = module
            if level:
                above = package.split(".")
                kept = above[: len(above) - level + 1]
                base = ".".join([*kept, module] if module else kept)
            found += [base, *(f"{base}.{listed}" for listed in names)]
        return self.loaded(found)


def parents(name: str) -> list[str]:
    """Return the packages above a module, outermost first."""
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def read(file: int, offset: int, size: int, deflated: bool) -> bytes:
    """Return a source's bytes, from an open file; raises `zlib.error` for damaged ones."""
    data = os.pread(file, size, offset)
    if not deflated:
        return data
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    source = inflater.decompress(data, _LIMIT)
    if not inflater.eof:
        raise zlib.error("a source is cut short, or too large to be one")
    return source


def main(job: str, out: str, paths: list[str]) -> None:
    """Compile what the job asks for. OUT's sources stand in no particular order."""
    gc.disable()  # a compiler makes trees, not cycles, and soon ends
    warnings.simplefilter("ignore")  # a wheel's invalid escapes are its author's concern
    with open(job, "rb") as stream:  # noqa: PTH123 (pathlib is a slow import here)
        asked = marshal.load(stream)  # noqa: S302 (torchship wrote it)
    sources: list[tuple[int, int, int, bool, str, str, bool]] = asked["sources"]
    roots: list[str] | None = asked["roots"]
    modules = Modules([below for *_, below, _, _ in sources])
    seen = set(range(len(sources))) if roots is None else modules.loaded(roots)
    waiting = list(seen)
    files = [os.open(path, os.O_RDONLY) for path in paths]
    with open(out, "wb") as sink:  # noqa: PTH123
        while waiting:
            number = waiting.pop()
            file, offset, size, deflated, _, path, checked = sources[number]
            source = read(files[file], offset, size, deflated)
            code = compile_source(source, path)
            if code is None:
                continue
            data = bytecode(source, code, _CHECKED if checked else _UNCHECKED)
            sink.write(struct.pack("<2I", number, len(data)) + data)
            if roots is not None:
                fresh = modules.imported(number, code) - seen
                seen |= fresh
                waiting += fresh


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
