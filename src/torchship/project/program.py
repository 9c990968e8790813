"""The file that a project's command starts, and what to start where there is none."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from torchship.project import textfile

_LIMIT = 4 << 20
_USUAL = ("train.py", "run.py")


def script(root: Path, command: Sequence[str], workspace: PurePosixPath) -> Path | None:
    """Return the project's Python file that a command starts, where it is there.

    ``python main.py``, ``python -m package``, and behind another program: ``torchrun main.py``.
    """
    for place, word in enumerate(command):
        if word == "-m" and command[place + 1 : place + 2]:
            for top in (root, root / "src"):
                inside = top.joinpath(*command[place + 1].split("."))
                for path in (inside.with_suffix(".py"), inside / "__main__.py"):
                    if path.is_file():
                        return path
        if not word.endswith(".py") or re.search(r"\s", word):  # a shell's whole script
            continue
        named = PurePosixPath(word)
        if named.is_absolute() and named.is_relative_to(workspace):
            named = named.relative_to(workspace)
        if not named.is_absolute() and (root / named).is_file():
            return root / named
    return None


def parsed(path: Path) -> ast.Module | None:
    """Return a Python file as a tree; None where it cannot be read, or is none of ours."""
    try:
        with warnings.catch_warnings():  # of a program's escapes, which are its own affair
            warnings.simplefilter("ignore")
            return ast.parse(textfile.read(path, limit=_LIMIT))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # too deeply nested is MemoryError, or RecursionError, by the Python that looks


def likely(root: Path) -> str | None:
    """Return the file at the top of a project that is most likely its program; None: unclear."""
    found = [
        path.name
        for path in sorted(root.glob("*.py"))
        if path.name not in ("setup.py", "conftest.py", "__init__.py")
        and not path.name.startswith("test_")
        and not path.name.endswith("_test.py")
    ]
    usual = [name for name in _USUAL if name in found]
    guarded = [name for name in found if _is_program(root / name)]
    alone = found if len(found) == 1 else []
    return next(iter([*usual, *guarded, *alone]), None)


def _is_program(path: Path) -> bool:
    """Tell whether a file has ``if __name__ == "__main__":``."""
    tree = parsed(path)
    return any(
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Compare)
        and isinstance(node.test.left, ast.Name)
        and node.test.left.id == "__name__"
        for node in (tree.body if tree else ())
    )
