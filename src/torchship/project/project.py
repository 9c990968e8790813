"""The project: a directory with the experiment, and its settings with their defaults."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal

from torchship.digest import Digest
from torchship.errors import ProjectError, UsageError
from torchship.platform import Platform

PYPROJECT = "pyproject.toml"
WORKSPACE = PurePosixPath("/workspace")

BASE = "debian:bookworm"
"""What an image stands on by default: Debian packages."""

PRUNE = ("torch/test/", "torch/bin/test_*")
"""Left out of wheels by default: torch's own C++ tests, dead weight at run time."""

ENVIRONMENT: Mapping[str, str] = MappingProxyType({"PYTHONUNBUFFERED": "1"})
"""Set in every image: without it, a program's output waits in a buffer when it is piped."""

SUITES: Mapping[str, str] = MappingProxyType(
    {"bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13"}
)
"""The one Python version that each Debian suite carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """A data file that is baked into the image. ``path`` is absolute, in the image."""

    path: str
    digest: Digest
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Where a metric is found: a key of a JSON file of the output, or a pattern on stdout.

    ``tolerance`` is how far a reproduction may be off, where the author says so; ``examples``
    how many an accuracy is a fraction of.
    """

    name: str
    file: str | None = "metrics.json"
    pattern: str | None = None
    better: Literal["higher", "lower"] = "higher"
    tolerance: float | None = None
    examples: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project as `load` reads it: every setting checked, every default filled in.

    ``requirements`` names the file, in the project, that lists what it needs:
    ``requirements.txt``, ``pylock.toml`` or ``pyproject.toml``; None where it needs nothing.
    ``torch`` names builds of torch: of several, each makes a variant of the image, and the first
    is what those get who choose none.
    """

    root: Path
    name: str
    command: tuple[str, ...] = ("python", "main.py")
    python: str = "3.11"
    base: str = BASE
    packages: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = (Platform("linux", "amd64"),)
    torch: tuple[str, ...] = ("auto",)
    requirements: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)
    exclude: tuple[str, ...] = ()
    prune: tuple[str, ...] = PRUNE
    bytecode: str = "imported"
    allow: tuple[str, ...] = ()
    data: tuple[DataFile, ...] = ()
    metrics: tuple[Metric, ...] = ()
    seed: str | None = None

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of the image; one without a name where there is one build of torch."""
        return self.torch if len(self.torch) > 1 else ("",)


def load(root: Path) -> Project:
    """Read a project's settings from ``[tool.torchship]`` of its ``pyproject.toml``, if any.

    Raises `ProjectError` where the directory or its files cannot be used, and `UsageError`,
    naming every faulty setting by its path, where the table is not what torchship takes.
    """
    from torchship.project import settings, tables

    root = root.absolute()
    if not root.is_dir():
        hint = "name the directory that holds main.py"
        if root.is_file():
            hint = f"name its directory: {root.parent}"
        raise ProjectError(f"{root} is not a directory", hint=hint)
    pyproject = root / PYPROJECT
    document = tables.parse(pyproject) if pyproject.is_file() else {}
    table = _table(_table(document, "tool", "tool"), "torchship", "tool.torchship")
    project = settings.read(table, root=root, name=default_name(root), has_deps=_lists(document))
    _check_command(project)
    return project


def default_name(root: Path) -> str:
    """Turn a directory's name into a repository component (distribution-spec, "Pulling manifests").

    Accents are dropped and all else that is not ``[a-z0-9]`` becomes a dash: ``My Expérience``
    is ``my-experience``. A name of which nothing is left is ``project``.
    """
    plain = unicodedata.normalize("NFKD", root.resolve().name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:100].strip("-") or "project"


def _table(document: Mapping[str, object], key: str, path: str) -> Mapping[str, object]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"{path} in {PYPROJECT} is not a table")
    return value


def _lists(document: Mapping[str, object]) -> bool:
    """Tell whether a pyproject.toml says, in ``[project]``, what the project needs."""
    table = document.get("project")
    return isinstance(table, dict) and "dependencies" in table


def _check_command(project: Project) -> None:
    """Raise `ProjectError` where the command starts a Python file that is not there."""
    program, *arguments = project.command
    if not re.fullmatch(r"python[0-9.]*", program):
        return
    script = arguments[0] if arguments else ""
    if script.startswith("-") or not script.endswith(".py"):
        return
    inside = PurePosixPath(script)
    if inside.is_absolute():
        if not inside.is_relative_to(WORKSPACE):
            return
        inside = inside.relative_to(WORKSPACE)
    if (project.root / inside).is_file():
        return
    if script == "main.py":
        others = sorted(path.name for path in project.root.glob("*.py"))
        say = f', for example command = ["python", "{others[0]}"]' if others else ""
        hint = f"write one, or say what to run with `command` in [tool.torchship]{say}"
        raise ProjectError(f"{project.root} has no main.py", hint=hint)
    raise ProjectError(
        f"tool.torchship.command starts {script}, which is not in {project.root}",
        hint="paths in the command start at the project's directory",
    )
