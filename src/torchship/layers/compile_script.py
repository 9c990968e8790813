"""Compiles Python files of zip archives to bytecode. Runs by itself, under the image's Python.

Started as ``python -I -S compile_script.py JOB OUT ZIP...``: no import of torchship, nothing
but the standard library, since the Python is a container's. JOB is a JSON file::

    {"mode": "imported", "files": [[0, "pkg/a.py", "pkg/a.py", "/opt/.../pkg/a.py"], ...]}

with, for each source, the number of its ZIP, its member, its path below ``sys.path``, and its
path in the image. OUT becomes a zip of stored members: below each path in the image without
its slash, the bytecode of that source. All the processors that the process may use are.

The bytes depend on nothing but the source, its path and the exact version of Python: marshal's
version 2 writes no back references, whose presence depends on reference counts. The header is
PEP 552's, unchecked and by hash, since files of an image have no times.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import marshal
import multiprocessing
import opcode
import os
import sys
import warnings
import zipfile
from multiprocessing.connection import Connection, wait
from types import CodeType
from typing import Any

_CO_OPTIMIZED = 1  # functions have it; modules and class bodies, which run on import, do not
_UNCHECKED = b"\x01\x00\x00\x00"  # PEP 552: hash-based (bit 0), not checked (bit 1 is clear)
_NO_VALUE = {opcode.opmap[name] for name in ("CACHE", "TO_BOOL", "NOP") if name in opcode.opmap}
_JUMPS_IF_FALSE = {
    opcode.opmap[name]
    for name in ("POP_JUMP_FORWARD_IF_FALSE", "POP_JUMP_IF_FALSE")
    if name in opcode.opmap
}
_ATTRIBUTE_SHIFT = 1 if sys.version_info >= (3, 12) else 0  # its low bit marks a method call
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

    An import inside a function waits for its call, and one under ``if TYPE_CHECKING:`` is for
    type checkers: neither runs when the module is imported.
    """
    found = []
    constants: list[object] = [None, None]
    extended = 0
    resume = 0  # where the block under ``if TYPE_CHECKING:`` ends
    typing_only = False  # the value that a jump would test is TYPE_CHECKING
    raw = code.co_code
    for position in range(0, len(raw), 2):
        operation, argument = raw[position], raw[position + 1] | extended
        extended = 0
        if position < resume or operation in _NO_VALUE:
            continue
        if typing_only and operation in _JUMPS_IF_FALSE:
            resume = position + 2 + 2 * argument  # relative, in instructions
        typing_only = _names(code, operation, argument) == "TYPE_CHECKING"
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


def _names(code: CodeType, operation: int, argument: int) -> str | None:
    """Return the name that an instruction of a module's body loads: ``a`` or ``typing.a``."""
    if operation == opcode.opmap["LOAD_NAME"]:
        return code.co_names[argument]
    if operation == opcode.opmap["LOAD_ATTR"]:
        return code.co_names[argument >> _ATTRIBUTE_SHIFT]
    return None


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


class Compiler:
    """Compiles files of the job by their numbers, in a process of its own."""

    def __init__(self, files: list[tuple[int, str, str, str]], zips: list[str]) -> None:
        self.files = files
        self.archives = [zipfile.ZipFile(path) for path in zips]
        self.modules = Modules(files)

    def compile(self, number: int) -> tuple[bytes, list[int]]:
        """Return a file's bytecode, empty where there is none, and the files that it imports."""
        archive, member, below, path = self.files[number]
        source = self.archives[archive].read(member)
        code = compile_source(source, path)
        if code is None:
            return b"", []
        name = below.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        targets = self.modules.targets(name, code)
        return bytecode(source, code), sorted({self.modules.index[target] for target in targets})


def serve(
    pipe: Connection[Any, Any], files: list[tuple[int, str, str, str]], zips: list[str]
) -> None:
    """Answer the numbers that come down the pipe, until it closes."""
    gc.disable()  # a compiler makes trees, not cycles, and soon ends
    warnings.simplefilter("ignore")  # a wheel's invalid escapes are its author's concern
    compiler = Compiler(files, zips)
    try:
        while True:
            number = pipe.recv()
            pipe.send((number, *compiler.compile(number)))
    except EOFError:
        return


def main(job: str, out: str, zips: list[str]) -> None:
    """Compile what the job asks for. OUT's members stand in no particular order."""
    with open(job, encoding="utf-8") as stream:  # noqa: PTH123 (pathlib is a slow import here)
        asked = json.load(stream)
    files: list[tuple[int, str, str, str]] = [tuple(file) for file in asked["files"]]
    modules = Modules(files)
    if asked["mode"] == "all":
        waiting = list(range(len(files)))
    else:
        waiting = [modules.index[name] for name in modules.roots()]
    seen = set(waiting)
    # Pipes and fork alone: a small container may lack what multiprocessing's locks need.
    fork = multiprocessing.get_context("fork")
    idle: list[Connection[Any, Any]] = []
    for _ in range(min(len(os.sched_getaffinity(0)), max(len(files), 1))):
        here, there = fork.Pipe()
        fork.Process(target=serve, args=(there, files, zips), daemon=True).start()
        there.close()
        idle.append(here)
    busy: list[Connection[Any, Any]] = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        while waiting or busy:
            while waiting and idle:
                idle[-1].send(waiting.pop())
                busy.append(idle.pop())
            ready = wait(busy)
            for pipe in [pipe for pipe in busy if pipe in ready]:
                number, data, imported = pipe.recv()
                busy.remove(pipe)
                idle.append(pipe)
                if data:
                    archive.writestr(zipfile.ZipInfo(files[number][3].lstrip("/")), data)
                if asked["mode"] != "all":
                    fresh = [target for target in imported if target not in seen]
                    seen.update(fresh)
                    waiting += fresh


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
