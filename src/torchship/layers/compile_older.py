"""Compiles as `compile_script` does, under a Python before 3.11. Runs by itself, as that one.

Started as ``python -S compile_older.py COMPILE_SCRIPT JOB OUT FILE...``. Before 3.11, jumps name
the place that they go to, not how far that is; and marshal writes sets in the order of their
elements' hashes, which differ from process to process: those of strings by the seed, that of
None by where the program was loaded. Here they are sorted, as newer Pythons do.

It stands apart so that bytecode for newer Pythons, whose layers are named after the script that
gave them, keeps its names.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # These Pythons have no -P, and not every way to start them allows -I: without either, the
    # neighbours of this file could be imported instead of the standard library.
    sys.path[:] = [folder for folder in sys.path if folder != __file__.rpartition("/")[0]]
    sys.dont_write_bytecode = True

import importlib.util
import marshal
import struct
from types import CodeType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from torchship.layers.compile_script import Instructions

_UNIT = 1 if sys.hexversion >= 0x030A0000 else 2  # jumps count instructions since 3.10, else bytes
_LINES = "co_linetable" if sys.hexversion >= 0x030A0000 else "co_lnotab"


def written(value: object) -> bytes:
    """Return what marshal's version 2 gives for a constant or code, with sets sorted.

    Source: CPython 3.9 and 3.10, Python/marshal.c, ``w_complex_object``.
    """
    if isinstance(value, CodeType):
        counts = (
            *(value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount),
            *(value.co_nlocals, value.co_stacksize, value.co_flags),
        )
        parts = (
            *(value.co_code, value.co_consts, value.co_names, value.co_varnames),
            *(value.co_freevars, value.co_cellvars, value.co_filename, value.co_name),
        )
        body = b"".join(map(written, parts)) + struct.pack("<i", value.co_firstlineno)
        return b"c" + struct.pack("<6i", *counts) + body + written(getattr(value, _LINES))
    if isinstance(value, tuple):
        return b"(" + struct.pack("<i", len(value)) + b"".join(map(written, value))
    if isinstance(value, frozenset):
        return b">" + struct.pack("<i", len(value)) + b"".join(sorted(map(written, value)))
    return marshal.dumps(value, 2)  # type: ignore[arg-type] # a constant, which it takes


def bytecode(source: bytes, code: CodeType, flags: bytes) -> bytes:
    """Return the content of the .pyc file."""
    digest = importlib.util.source_hash(source)
    return importlib.util.MAGIC_NUMBER + flags + digest + written(code)


def compiler(path: str) -> ModuleType:
    """Return `compile_script`, made to read and write what this Python does."""
    spec = importlib.util.spec_from_file_location("compile_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    whole, jumps = module.Instructions.argument, module._JUMPS_IF_FALSE

    def argument(self: Instructions, place: int) -> int:
        found: int = whole(self, place)
        return found // _UNIT - (place + 1) if self.operations[place] in jumps else found

    module.Instructions.argument = argument
    module.bytecode = bytecode  # type: ignore[attr-defined] # that script's
    return module


if __name__ == "__main__":
    compiler(sys.argv[1]).main(sys.argv[2], sys.argv[3], sys.argv[4:])
