"""Files that say what a project needs, and are not read: better said than found out."""

from __future__ import annotations

from collections.abc import Mapping

from torchship.project import requirements, tables
from torchship.project.project import PYPROJECT, Project

_UNREAD = (
    *("environment.yml", "environment.yaml", "conda.yml", "conda.yaml"),
    *("Pipfile", "setup.py", "setup.cfg"),
)
_PLACES = "requirements.txt, or `dependencies` of [project] in pyproject.toml"


def overlooked(project: Project) -> tuple[str, ...]:
    """Say in lines which lists of requirements do not count, and what in those that do.

    Nothing where all is plain.
    """
    notes = requirements.read(project).notes
    path = project.root / PYPROJECT
    document = tables.parse(path) if path.is_file() else {}
    if project.requirements is None:
        unread = [name for name in _UNREAD if (project.root / name).is_file()]
        if _at(document, "tool", "poetry", "dependencies"):
            unread.append(f"[tool.poetry] of {PYPROJECT}")
        return tuple(f"{name} is not read: list what it needs in {_PLACES}" for name in unread)
    if "requirements" in _at(document, "tool", "torchship"):
        return notes
    others = [
        name
        for name in ("requirements.txt", "pylock.toml")
        if name != project.requirements and (project.root / name).is_file()
    ]
    if project.requirements != PYPROJECT and _at(document, "project").get("dependencies"):
        others.append(f"`dependencies` of {PYPROJECT}")
    counting = tuple(
        f"{project.requirements} counts, {name} does not: `requirements` in [tool.torchship] names "
        "another"
        for name in others
    )
    return (*counting, *notes)


def _at(document: Mapping[str, object], *keys: str) -> Mapping[str, object]:
    found: object = document
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
