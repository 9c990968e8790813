"""Files that say what a project needs, and are not read: better said than found out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torchship.amounts import counted
from torchship.project import requirements, tables, textfile
from torchship.project.imports import foreign
from torchship.project.lock import Lock
from torchship.project.program import script
from torchship.project.project import PYPROJECT, SETTINGS, SUITES, WORKSPACE, Project

_UNREAD = (
    *("environment.yml", "environment.yaml", "conda.yml", "conda.yaml"),
    *("Pipfile", "setup.py", "setup.cfg"),
)
_LISTS = ("requirements.in", "requirements/*.txt", "requirements/*.in", "requirements[-_]*.txt")
_LOCKS = {
    "uv.lock": "uv export --no-dev --no-emit-project --format pylock.toml -o pylock.toml",
    "pdm.lock": "pdm export --prod -o requirements.txt",
    "poetry.lock": "poetry export -o requirements.txt",
    "Pipfile.lock": "pipenv requirements > requirements.txt",
}
_PLACES = "requirements.txt, or `dependencies` of [project] in pyproject.toml"
# PEP 723: a block of comments in the script itself.
_INLINE = re.compile(rb"^# /// script[ \t]*$", re.MULTILINE)
_NAMED = 6  # modules, before the rest is counted
_SMALL = 1 << 20  # bytes of a script, of .python-version


def overlooked(project: Project) -> tuple[str, ...]:
    """Say in lines which lists of requirements do not count, and what in those that do.

    Where none counts it is said what the program imports. Nothing where all is plain.
    """
    notes = requirements.read(project).notes
    path = project.root / PYPROJECT
    document = tables.parse(path) if path.is_file() else {}
    settings = _at(document, "tool", "torchship")
    notes = (*notes, *_other_python(project, settings), *_programs(document))
    if project.requirements is None:
        return (*_without(project), *_unread(project, document), *_locks(project), *notes)
    if "requirements" in settings:
        return notes
    others = [
        name
        for name in ("requirements.txt", "pylock.toml")
        if name != project.requirements and (project.root / name).is_file()
    ]
    if project.requirements != PYPROJECT and _at(document, "project").get("dependencies"):
        others.append(f"`dependencies` of {PYPROJECT}")
    counting = tuple(
        f"{project.requirements} counts, {name} does not: `requirements` in {SETTINGS} names "
        "another"
        for name in others
    )
    return (*counting, *_locks(project), *notes)


def unlisted(project: Project, lock: Lock) -> tuple[str, ...]:
    """Say in a line that the program imports torch, and the lock has none, where that is so.

    Of a project without any requirements `overlooked` says it. What a published base has of
    Python packages is of its own environment, and the program's is another.
    """
    if project.requirements is None or any(
        pin.name == "torch" for entry in lock.platforms for pin in entry.wheels
    ):
        return ()
    if "torch" not in foreign(project):
        return ()
    return (
        f"the program imports torch, and nothing in {project.requirements} brings it"
        f"{_of_base(project)}",
    )


def _without(project: Project) -> Iterator[str]:
    """Say what an image will lack that has no wheels."""
    modules = foreign(project)
    if not modules:
        yield "nothing here says what the program needs: the image has Python, and no packages"
        return
    more = len(modules) - _NAMED
    rest = f" and {counted(more, 'other')}" if more > 0 else ""
    yield (
        "nothing here says what the program needs: it imports "
        f"{', '.join(modules[:_NAMED])}{rest}, which the image will not have{_of_base(project)}; "
        f"list what it needs in {_PLACES}"
    )


def _of_base(project: Project) -> str:
    if project.base.startswith("debian:"):
        return ""
    return f" (what the Python of {project.base} has of packages is not seen by the program)"


def _unread(project: Project, document: Mapping[str, object]) -> Iterator[str]:
    unread = [name for name in _UNREAD if (project.root / name).is_file()]
    if _at(document, "tool", "poetry", "dependencies"):
        unread.append(f"[tool.poetry] of {PYPROJECT}")
    if _at(document, "dependency-groups"):
        unread.append(f"[dependency-groups] of {PYPROJECT}")
    if _at(document, "project", "optional-dependencies"):
        unread.append(f"[project.optional-dependencies] of {PYPROJECT}")
    main = script(project.root, project.command, WORKSPACE)
    if main is not None:
        try:
            if _INLINE.search(textfile.read(main, limit=_SMALL)):
                unread.append(f"the `# /// script` block of {main.relative_to(project.root)}")
        except OSError:
            pass  # told where the source is read
    for name in unread:
        yield f"{name} is not read: list what it needs in {_PLACES}"
    for pattern in _LISTS:
        for path in sorted(project.root.glob(pattern)):
            name = path.relative_to(project.root).as_posix()
            if path.is_file() and name.isprintable():
                yield f'{name} is not read: requirements = "{name}" in {SETTINGS} makes it count'


def _locks(project: Project) -> Iterator[str]:
    """Say how the locks of other tools come to count, where nothing that was made of one does."""
    found = {name: made for name, made in _LOCKS.items() if (project.root / name).is_file()}
    for name, command in found.items():
        if project.requirements in (None, PYPROJECT):
            yield f"{name} does not count here: `{command}` makes of it what does"
        elif project.requirements == "requirements.txt":
            yield f"requirements.txt counts, {name} does not"


def _other_python(project: Project, settings: Mapping[str, object]) -> Iterator[str]:
    """Say that other tools are told another version of Python than the image has."""
    if "python" in settings or "base" in settings:
        return
    try:
        text = textfile.read(project.root / ".python-version", limit=_SMALL)
    except OSError:
        return
    found = re.match(rb"\s*(?:cpython-?)?(3\.[0-9]+)", text)
    if found and found[1].decode() != project.python:
        wanted = found[1].decode()
        suites = {python: f"debian:{suite}" for suite, python in SUITES.items()}
        base = suites.get(wanted, f"python:{wanted}-slim")
        yield (
            f".python-version says {wanted}, and the image has Python {project.python}: "
            f'python = "{wanted}" and base = "{base}" in {SETTINGS} take that one'
        )


def _programs(document: Mapping[str, object]) -> Iterator[str]:
    """Say that programs which only an installation of the project would make are not there."""
    names = [*_at(document, "project", "scripts"), *_at(document, "project", "gui-scripts")]
    if names:
        more = len(names) - _NAMED
        rest = f" and {counted(more, 'other')}" if more > 0 else ""
        yield (
            f"programs of [project.scripts] ({', '.join(names[:_NAMED])}{rest}) are not in the "
            "image, as the project is not installed: use python -m"
        )


def _at(document: Mapping[str, object], *keys: str) -> Mapping[str, object]:
    found: object = document
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
