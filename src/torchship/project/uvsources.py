"""``[tool.uv.sources]``: which index a requirement of a pyproject.toml is taken from.

Of the sources that uv knows, an index is one that wheels come from; a path, a repository, an
address and a member of the workspace are built where the requirement is resolved.

Source: uv's documentation, "Managing dependencies", "Dependency sources".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torchship.errors import ProjectError
from torchship.project import reqfile, uvsettings
from torchship.project.names import normalized
from torchship.project.project import PYPROJECT, Project

_KINDS = {
    "editable": "a local path",
    "git": "a source repository",
    "path": "a local path",
    "url": "an address",
    "workspace": "the workspace",
}


def of_project(
    project: Project, document: Mapping[str, object], needs: Sequence[str]
) -> Mapping[str, list[dict[str, object]]]:
    """Return, by normalised name, the indexes that requirements are taken from, and when.

    ``needs`` are the dependencies of the project. Raises `ProjectError` where one of them would
    be taken, on a platform of the project's, from what is no index.
    """
    table = uvsettings.tool_uv(document)
    sources = table.get("sources", {})
    if not isinstance(sources, dict):
        raise ProjectError(f"tool.uv.sources in {PYPROJECT} is not a table")
    if table.get("no-sources") is True:
        return {}
    wanted = {reqfile.name_of(line): f"project.dependencies[{i}]" for i, line in enumerate(needs)}
    spared = table.get("no-sources-package", [])
    for name in spared if isinstance(spared, list) else []:
        wanted.pop(normalized(str(name)), None)
    found = {}
    for name, value in sources.items():
        at = wanted.get(normalized(name))
        entries = value if isinstance(value, list) else [value]
        if at is not None:
            kept = list(_indexes(entries, name, at, project))
            if kept:
                found[normalized(name)] = kept
    return found


def _indexes(
    entries: Sequence[object], name: str, at: str, project: Project
) -> Iterator[dict[str, object]]:
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("marker", ""), str):
            raise ProjectError(f"tool.uv.sources.{name} in {PYPROJECT} is not a source")
        if "extra" in entry or "group" in entry:
            continue  # holds for what only an extra or a group asks for
        marker = entry.get("marker", "")
        if isinstance(entry.get("index"), str):
            yield {key: entry[key] for key in ("index", "marker") if key in entry}
        elif not marker or _holds(marker, name, project):
            kind = next((_KINDS[key] for key in _KINDS if key in entry), "an unknown source")
            raise ProjectError(
                f"{at}: [tool.uv.sources] takes {name} from {kind}, which cannot be pinned",
                hint="build a wheel into a folder (`pip wheel --no-deps -w wheels ...`), write "
                f'find-links = ["wheels"] in [tool.uv], and take {name} out of its sources',
            )


def _holds(marker: str, name: str, project: Project) -> bool:
    """Tell whether a marker is true on any platform of the project's."""
    from packaging.markers import InvalidMarker, Marker

    from torchship.project.target import Target

    try:
        parsed = Marker(marker)
    except InvalidMarker as fault:
        reason = str(fault).splitlines()[0]
        raise ProjectError(f"tool.uv.sources.{name} in {PYPROJECT}: {reason}") from None
    return any(
        parsed.evaluate({**Target.of(platform, project.python, project.base).environment})
        for platform in project.platforms
    )
