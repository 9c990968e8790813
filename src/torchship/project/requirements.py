"""What the project says it needs: its requirements, all that these include, and their digest.

uv is given what stands here, in files of our own writing, and never the project's files:
these are read once, here, and what no wheel can satisfy is refused in plain words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct, field

from torchship import canonical
from torchship.digest import Digest
from torchship.errors import ProjectError
from torchship.project import reqfile, tables, uvsettings, uvsources
from torchship.project.names import normalized
from torchship.project.project import PYPROJECT, Project
from torchship.project.uvsettings import UvSettings


class Requirements(Struct, frozen=True, kw_only=True):
    """What a project needs, as its files say it.

    ``file`` is the project's own file (None: nothing is needed); ``digests`` has, by path in
    the project, the digest of each file's meaning: comments and blank lines change nothing.
    ``lines`` are the requirements and ``constraints`` what holds for them: PEP 508, checked,
    none with an address. ``options`` are the lines that name indexes, with absolute paths;
    ``hashes`` the sha256 that a requirement allows, by normalised name; ``prerelease`` tells
    that a file says ``--pre``. ``names`` are the distributions that are required by name,
    normalised; None where a lock does not tell them from those that they need. ``settings`` are
    what is followed of uv's own, and ``pyproject`` is where the requirements are a
    pyproject.toml's: what of that file, other than ``lines``, says how they resolve. ``notes``
    are lines to be said where they are resolved; ``has_itself`` tells that the project's own
    package is among the requirements.
    """

    file: Path | None
    digests: Mapping[str, Digest] = field(default_factory=lambda: MappingProxyType({}))
    lines: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    hashes: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    prerelease: bool = False
    names: frozenset[str] | None = frozenset()
    settings: UvSettings = field(default_factory=UvSettings)
    pyproject: Mapping[str, object] | None = None
    notes: tuple[str, ...] = ()
    has_itself: bool = False

    @property
    def is_lock(self) -> bool:
        """True where the file is itself a lock (PEP 751), to be taken as it is."""
        return (
            self.file is not None
            and self.file.name.endswith(".toml")
            and (self.file.name != PYPROJECT)
        )


def read(project: Project) -> Requirements:
    """Read the project's requirements and all that they include, and its settings for uv.

    Raises `ProjectError` with file and line for what cannot become a wheel of the lock: a
    path, a repository, an editable, an option that has packages built, a file outside the
    project.
    """
    if project.requirements is None:
        return Requirements(file=None)
    path = project.root / project.requirements
    own = project.root / PYPROJECT
    document = tables.parse(own) if own.is_file() else {}
    if path.suffix == ".toml" and path.name != PYPROJECT:
        settings = uvsettings.of_project(project.root, document, following=uvsettings.PLACES)
        meaning = Digest.of(canonical.encode(_plain(tables.parse(path))))
        return Requirements(
            file=path,
            digests=MappingProxyType({project.requirements: meaning}),
            names=None,
            settings=settings,
        )
    settings = uvsettings.of_project(project.root, document)
    if path.name == PYPROJECT:
        return _pyproject(project, path, settings)
    reader = reqfile.Reader(project.root)
    reader.file(path)
    return Requirements(
        file=path,
        digests=MappingProxyType(_joined(_meaning(settings), reader.digests)),
        lines=tuple(reader.requirements),
        constraints=tuple(reader.constraints),
        options=tuple(dict.fromkeys(reader.options)),
        hashes=MappingProxyType({k: frozenset(v) for k, v in reader.hashes.items()}),
        prerelease=reader.prerelease,
        names=frozenset(reqfile.name_of(line) for line in reader.requirements),
        settings=settings,
        notes=(*reader.notes, *settings.unfollowed),
        has_itself=bool(reader.notes),
    )


def _pyproject(project: Project, path: Path, settings: UvSettings) -> Requirements:
    document = tables.parse(path)
    table = document.get("project")
    table = table if isinstance(table, dict) else {}
    if "dependencies" in table.get("dynamic", ()):
        raise ProjectError(
            f"{PYPROJECT} has dynamic dependencies, which only its build could tell",
            hint="list them in requirements.txt",
        )
    needs = reqfile.dependencies(table)
    meaning = [list(needs), table.get("requires-python"), _plain(uvsettings.tool_uv(document))]
    name = str(project.requirements)
    return Requirements(
        file=path,
        digests=MappingProxyType(
            {**_meaning(settings), name: Digest.of(canonical.encode(meaning))}
        ),
        lines=needs,
        names=frozenset(reqfile.name_of(text) for text in needs),
        settings=settings,
        pyproject=_resolving(project, document, table, needs),
        notes=settings.unfollowed,
    )


def _resolving(
    project: Project,
    document: Mapping[str, object],
    table: Mapping[str, object],
    needs: Sequence[str],
) -> Mapping[str, object]:
    """Return what else of a pyproject.toml says how its dependencies resolve.

    That is which indexes they are taken from and, where it names itself with an extra, what
    its extras are. Its name is kept, for uv speaks of it.
    """
    name = table.get("name")
    name = normalized(name) if isinstance(name, str) and reqfile.is_name(name) else project.name
    kept: dict[str, object] = {"name": name}
    if name in {reqfile.name_of(text) for text in needs}:
        extras = table.get("optional-dependencies", {})
        if not isinstance(extras, dict):
            raise ProjectError(f"project.optional-dependencies in {PYPROJECT} is not a table")
        for extra, lines in extras.items():
            for i, line in enumerate(lines if isinstance(lines, list) else [None]):
                at = f"project.optional-dependencies.{extra}[{i}]"
                if not isinstance(line, str):
                    raise ProjectError(f"{at} in {PYPROJECT} is not a requirement")
                reqfile.check(line.strip(), at)
        kept["optional-dependencies"] = extras
    sources = uvsources.of_project(project, document, needs)
    if sources:
        try:
            indexes = uvsettings.indexes(uvsettings.tool_uv(document), "[tool.uv]")
        except ValueError as fault:
            raise ProjectError(f"{fault} in {PYPROJECT} is not an index of uv's") from None
        kept |= uvsettings.placed({"index": indexes}, project.root)
        kept["sources"] = sources
    return MappingProxyType(kept)


def _meaning(settings: UvSettings) -> Mapping[str, Digest]:
    """Return the digest of settings that a resolution depends on, by the name of their file."""
    if not settings.file:
        return {}
    return {settings.file: Digest.of(canonical.encode(_plain(settings.table)))}


def _joined(first: Mapping[str, Digest], second: Mapping[str, Digest]) -> dict[str, Digest]:
    """Return the digests of both; of a file that has two meanings, one digest of the two."""
    joined = {**first, **second}
    for name in first.keys() & second.keys():
        joined[name] = Digest.of(canonical.encode([str(first[name]), str(second[name])]))
    return joined


def _plain(value: object) -> object:
    """Make a TOML value one of JSON: times become text."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) else str(value)
