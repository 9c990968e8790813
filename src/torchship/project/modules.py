"""Where Python finds the packages of a project that keeps them in ``src/``.

The project's code is in the image, and not installed: nothing of it is built. Source: Python
Packaging User Guide, "src layout vs flat layout".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from torchship.project.project import WORKSPACE, Project

VARIABLE = "PYTHONPATH"

_PACKAGE = re.compile(r"src/([^/]+)/__init__\.py")
_MODULE = re.compile(r"src/[^/]+\.py")


def search_path(project: Project, paths: Iterable[str]) -> str:
    """Return the folder that Python looks for the project's packages in, too; empty: in none.

    ``paths`` are those of the project that go into the image. It is ``src`` where the project is
    a package of Python's, which stands there by its name, or by that of its command, and alone;
    and where its settings say nothing of where to look. For a ``src/random.py`` or a
    ``src/logging`` there, which a script beside it imports as ``src.logging``, would hide Python's.
    """
    if not project.is_package or VARIABLE in project.environment:
        return ""
    inside = [path for path in paths if path.startswith("src/")]
    packages = {match[1] for match in map(_PACKAGE.fullmatch, inside) if match}
    if any(map(_MODULE.fullmatch, inside)) or len(packages) != 1:
        return ""
    return f"{WORKSPACE}/src" if packages <= set(_names(project)) else ""


def _names(project: Project) -> Iterator[str]:
    """Yield what a project's package may be called: as the project, or as its command has it."""
    yield re.sub(r"[-.]+", "_", project.name)
    for flag, module in zip(project.command, project.command[1:], strict=False):
        if flag == "-m":
            yield module.partition(".")[0]
