"""The project: a directory with the experiment, and its settings with their defaults."""

from __future__ import annotations

import hashlib
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from torchship.digest import Digest
from torchship.errors import ProjectError, UsageError
from torchship.platform import Platform
from torchship.project import builds

PYPROJECT = "pyproject.toml"
SETTINGS = "[tool.torchship]"
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


def minor(python: str) -> str:
    """Return ``3.11`` of ``3.11`` or ``3.11.2``: what names site-packages and interpreters."""
    return ".".join(python.split(".")[:2])


class DataFile(Struct, frozen=True, kw_only=True):
    """A data file that is baked into the image. ``path`` is absolute, in the image."""

    path: str
    digest: Digest
    urls: tuple[str, ...] = ()


class Metric(Struct, frozen=True, kw_only=True):
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


class Project(Struct, frozen=True, kw_only=True):
    """A project as `load` reads it: every setting checked, every default filled in.

    ``requirements`` names the file, in the project, that lists what it needs:
    ``requirements.txt``, ``pylock.toml`` or ``pyproject.toml``; None where it needs nothing.
    ``torch`` names builds of torch: of several, each makes a variant of the image, and the first
    is what those get who choose none. ``requires_python`` is what ``[project]`` says of versions;
    ``is_package`` tells that its pyproject.toml has that table, or says how to build a package.
    """

    root: Path
    name: str
    command: tuple[str, ...] = ("python", "main.py")
    python: str = "3.11"
    base: str = BASE
    packages: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = (Platform("linux", "amd64"),)
    torch: tuple[str, ...] = (builds.AUTO,)
    requirements: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)
    exclude: tuple[str, ...] = ()
    prune: tuple[str, ...] = PRUNE
    bytecode: str = "imported"
    allow: tuple[str, ...] = ()
    data: tuple[DataFile, ...] = ()
    metrics: tuple[Metric, ...] = ()
    seed: str | None = None
    requires_python: str = ""
    is_package: bool = False

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of the image; one without a name where there is one build of torch."""
        return self.torch if len(self.torch) > 1 else ("",)


def load(root: Path, *, command: Sequence[str] = ()) -> Project:
    """Read a project's settings from ``[tool.torchship]`` of its ``pyproject.toml``, if any.

    With a ``command`` to be run instead, what the project's own would start may be missing.
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
    metadata = _table(document, "project", "project")
    project = settings.read(
        table,
        root=root,
        name=default_name(root, document),
        has_deps="dependencies" in (*metadata, *_dynamic(metadata)),
    )
    if document.keys() & {"project", "build-system"}:
        project = replace(project, is_package=True)
    wanted = metadata.get("requires-python")
    if isinstance(wanted, str):
        project = replace(project, requires_python=wanted.strip())
    if not command:
        _check_command(project)
    _check_python(project)
    return project


def default_name(root: Path, document: Mapping[str, object]) -> str:
    """Return ``name`` of ``[project]`` in its pyproject.toml, else its directory's, `component`."""
    metadata = document.get("project")
    named = metadata.get("name") if isinstance(metadata, dict) else None
    return component(named if isinstance(named, str) and named else root.resolve().name)


def is_unnamed(project: Project) -> bool:
    """Tell whether the image's name has nothing of the directory's: no letter can stand in it."""
    folder = project.root.resolve().name
    return not _known(folder) and project.name == component(folder)


def component(name: str) -> str:
    """Turn a name into a repository component (distribution-spec, "Pulling manifests").

    Accents are dropped and all else that is not ``[a-z0-9]`` becomes a dash: ``My Expérience``
    is ``my-experience``. Where letters of other scripts are lost, a hash of the name takes their
    place, so that two such names stay two: ``실험`` is ``project-`` and eight digits.
    """
    letters, known = unicodedata.normalize("NFKD", name), _known(name)
    if all(char.isascii() for char in letters if char.isalnum()):
        return known or "project"
    # macOS has names in another normal form than Linux has them
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape"))
    return f"{known or 'project'}-{digest.hexdigest()[:8]}"


def _known(name: str) -> str:
    """Return what of a name can stand in a repository component."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:100].strip("-")


def _table(document: Mapping[str, object], key: str, path: str) -> Mapping[str, object]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"{path} in {PYPROJECT} is not a table")
    return value


def _dynamic(metadata: Mapping[str, object]) -> Sequence[object]:
    """Return the fields of ``[project]`` that only a build of the project could tell."""
    fields = metadata.get("dynamic", [])
    if not isinstance(fields, list):
        raise UsageError(f"project.dynamic in {PYPROJECT} is not a list")
    return fields


def excludes(project: Project, python: str) -> bool:
    """Tell whether ``requires-python`` excludes a Python, by its full version such as ``3.11.2``.

    `load` has looked at the minor version: what is asked here is whether the release fits, too.
    """
    if not re.search(r"\.\d+\.\d", project.requires_python):  # most name no release
        return False
    from packaging.specifiers import SpecifierSet

    return not SpecifierSet(project.requires_python).contains(python, prereleases=True)


def _check_python(project: Project) -> None:
    """Raise `UsageError` where no release of the image's Python is in ``requires-python``."""
    wanted = project.requires_python
    if not wanted:
        return
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        allowed = SpecifierSet(wanted)
    except InvalidSpecifier:
        raise UsageError(
            f"project.requires-python in {PYPROJECT} is not a range of versions: {wanted!r}",
            hint='write it as ">=3.11"',
        ) from None

    def fits(minor: str) -> bool:
        return any(allowed.contains(f"{minor}.{release}") for release in range(40))

    if fits(project.python):
        return
    other = next((suite for suite, python in SUITES.items() if fits(python)), None)
    newer = next((minor for minor in range(9, 40) if fits(f"3.{minor}")), None)
    hint = f"correct requires-python, or set a base that has such a Python in {SETTINGS}"
    if other is not None:
        hint = f'set base = "debian:{other}" in {SETTINGS}, which has Python {SUITES[other]}'
    elif newer is not None:
        hint = f'set python = "3.{newer}" and base = "python:3.{newer}-slim" in {SETTINGS}'
    raise UsageError(
        f"the project wants Python {wanted} (project.requires-python in {PYPROJECT}), and the "
        f"image would have {project.python}",
        hint=hint,
    )


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
        from torchship.project.program import likely

        hint = "write one, or say what to run with `command` in [tool.torchship]"
        other = likely(project.root)
        if other is not None:
            here = shlex.quote(str(project.root))
            hint = (
                f'write one, or set command = ["python", "{other}"] in [tool.torchship]; as it is: '
                f"torchship run {here} -- python {shlex.quote(other)}"
            )
        raise ProjectError(f"{project.root} has no main.py", hint=hint)
    raise ProjectError(
        f"tool.torchship.command starts {script}, which is not in {project.root}",
        hint="paths in the command start at the project's directory",
    )
