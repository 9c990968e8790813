"""What a project's program imports that neither Python nor the project itself has."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from torchship.project import program
from torchship.project.project import WORKSPACE, Project

_FILES = 500  # of the project, that are looked into
# What the Python of an image may have, and a newer one, that looks, has no more.
_PYTHONS = frozenset(
    (
        *("aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt", "distutils"),
        *("imghdr", "imp", "lib2to3", "mailcap", "nis", "nntplib", "ossaudiodev", "pipes", "smtpd"),
        *("sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"),
        "__main__",  # the program itself
    )
)


def foreign(project: Project) -> tuple[str, ...]:
    """Return the modules, sorted, that the program and those files of the project import.

    Imports that may fail are left out (``try: import wandb``), and so are those for types alone.
    Nothing where the command starts no Python file of the project.
    """
    main = program.script(project.root, project.command, WORKSPACE)
    if main is None:
        return ()
    # Where Python looks: beside the script, and where the settings say.
    named = project.environment.get("PYTHONPATH", "").split(":")
    roots = [main.parent, project.root, project.root / "src"]
    roots += [project.root / path.removeprefix(f"{WORKSPACE}/") for path in named if path]
    waiting, seen, found = [main], {main}, set()
    while waiting and len(seen) < _FILES:
        path = waiting.pop()
        for name, level in _imported(path):
            top = name.partition(".")[0]
            if not level and (top in sys.stdlib_module_names or top in _PYTHONS):
                continue
            around = roots if not level else path.parents[level - 1 : level]
            files = _files(around, name)
            if not files and not level and not _is_there(roots, top):
                found.add(top)
            waiting += [file for file in files if file not in seen]
            seen.update(files)
    return tuple(sorted(found))


def _files(roots: Sequence[Path], name: str) -> list[Path]:
    """Return the files of a module, and of the packages around it, below some folders."""
    parts = name.split(".")
    inside = [root.joinpath(*parts[:depth]) for root in roots for depth in range(1, len(parts) + 1)]
    files = [file for path in inside for file in (path.with_suffix(".py"), path / "__init__.py")]
    return [file for file in files if file.is_file()]


def _is_there(roots: Sequence[Path], name: str) -> bool:
    """Tell whether a folder has a module of this name that is no Python file, or has such files."""
    return any(
        next(root.glob(pattern), None) is not None
        for root in roots
        for pattern in (f"{name}.so", f"{name}.*.so", f"{name}/*.py", f"{name}/*/*.py")
    )


def _imported(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the modules that a file imports, each with how many folders up it is looked for."""
    tree = program.parsed(path)
    waiting: list[ast.AST] = [tree] if tree is not None else []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # What is imported from a package may be a module, too.
            names = [f"{node.module or ''}.{alias.name}".lstrip(".") for alias in node.names]
            yield from ((name, node.level) for name in names)
        elif isinstance(node, ast.Try) and node.handlers:
            waiting += node.finalbody
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"
