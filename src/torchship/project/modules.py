"""Where Python finds the packages of a project that keeps them in ``src/``.

The project's code is in the image, and not installed: nothing of it is built. Source: Python
Packaging User Guide, "src layout vs flat layout".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torchship.project.project import WORKSPACE, Project

VARIABLE = "PYTHONPATH"

_PACKAGE = re.compile(r"src/[^/]+/__init__\.py")
_MODULE = re.compile(r"src/[^/]+\.py")


def search_path(project: Project, paths: Iterable[str]) -> str:
    """Return the folder that Python looks for the project's packages in, too; empty: in none.

    ``paths`` are those of the project that go into the image. It is ``src`` where the project is
    a package of Python's, with packages there and nothing else, and its settings say nothing of
    where to look: a ``src/random.py``, which a script beside it may import, would hide Python's.
    """
    if not project.is_package or VARIABLE in project.environment:
        return ""
    inside = [path for path in paths if path.startswith("src/")]
    if any(map(_MODULE.fullmatch, inside)) or not any(map(_PACKAGE.fullmatch, inside)):
        return ""
    return f"{WORKSPACE}/src"
