"""A question to uv, written into files of our own: nothing of the project's is shown to uv.

uv builds packages from source where a file or a setting has it do so, whatever its command line
says, and a build runs the package's own code. So it starts in a folder that holds what is
written here, from what was read and checked, and nothing else: requirements that each name a
distribution, the places to look for it in, and the settings that decision 18 lists.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from torchship.project import reqfile, uvsettings
from torchship.project.names import normalized
from torchship.project.requirements import Requirements
from torchship.project.target import Target

_SETTINGS, _PYPROJECT = "uv.toml", "pyproject.toml"
_REQUIREMENTS, _CONSTRAINTS = "requirements.txt", "constraints.txt"


class Question(Struct, frozen=True, kw_only=True):
    """What uv is asked.

    ``lines`` are requirements, checked, and ``constraints`` such that hold for what is needed
    anyway; ``options`` are lines of a requirements file that name indexes; ``settings`` are
    those of ``uv.toml`` that are followed. ``pyproject`` is what else `Requirements` has of a
    pyproject.toml. ``preferred`` has versions by name that are kept where they still fit.
    ``cache`` is where uv keeps what it learns, unless the user has named a folder for that: it
    unpacks large wheels there, to read a few lines of them.
    """

    lines: tuple[str, ...]
    target: Target
    constraints: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    settings: Mapping[str, object]
    pyproject: Mapping[str, object] | None = None
    arguments: tuple[str, ...] = ()
    preferred: Mapping[str, str] | None = None
    cache: Path | None = None


def of_project(
    needs: Requirements,
    root: Path,
    target: Target,
    *,
    preferred: Mapping[str, str],
    cache: Path | None,
) -> Question:
    """Return the question which wheels a project's requirements mean."""
    return Question(
        lines=needs.lines,
        target=target,
        constraints=needs.constraints,
        options=needs.options,
        settings=settings(needs, root),
        pyproject=needs.pyproject,
        arguments=("--prerelease", "allow") if needs.prerelease else (),
        preferred=preferred,
        cache=cache,
    )


def settings(needs: Requirements, root: Path) -> Mapping[str, object]:
    """Return the settings of a project that are followed, over the user's own."""
    own = uvsettings.placed(needs.settings.table, root)
    return uvsettings.merge(own, uvsettings.of_user())


def anywhere(needs: Requirements, root: Path) -> Mapping[str, object]:
    """Return settings by which files that are known by their sha256 are looked for everywhere."""
    named = {"index": (needs.pyproject or {}).get("index", [])}
    return uvsettings.unpinned(uvsettings.merge(settings(needs, root), named))


def write(question: Question, folder: Path) -> tuple[str, ...]:
    """Write the question's files; return the arguments that name them, relative to the folder."""
    import tomli_w

    # A file that is named stands for all that uv would look for, here and in the folders above.
    (folder / _SETTINGS).write_text(tomli_w.dumps(question.settings), encoding="utf-8")
    arguments = ["--config-file", _SETTINGS]
    source = _REQUIREMENTS
    if question.pyproject is None:
        _write_lines(folder / source, [*map(_option, question.options), *_each(question.lines)])
    else:
        source = _PYPROJECT
        text = tomli_w.dumps(_document(question.pyproject, question.lines))
        (folder / source).write_text(text, encoding="utf-8")
    if question.constraints:
        _write_lines(folder / _CONSTRAINTS, _each(question.constraints))
        arguments += ["--constraints", _CONSTRAINTS]
    arguments += _always(folder, os.environ)
    return (*arguments, *question.arguments, source)


def _always(folder: Path, environ: Mapping[str, str]) -> list[str]:
    """Copy the files that the user's environment has uv heed, and name them in arguments."""
    arguments = []
    for variable, option in uvsettings.REQUIREMENTS.items():
        for i, name in enumerate(environ.get(variable, "").split()):
            reader = reqfile.Reader(Path("/"))
            reader.file(Path(name).absolute())
            copy = folder / f"{option}-{i}.txt"
            lines = _each([*reader.requirements, *reader.constraints])
            _write_lines(copy, [*map(_option, reader.options), *lines])
            arguments += [f"--{option}", copy.name]
    return arguments


def plain(line: str) -> str:
    """Write a requirement, checked, so that it can be read in one way only (PEP 508).

    Its name is normalised, for uv takes one such as ``a.zip`` for a file.
    """
    from packaging.requirements import Requirement

    need = Requirement(line)
    extras = f"[{','.join(sorted(need.extras))}]" if need.extras else ""
    marker = f" ; {need.marker}" if need.marker else ""
    return f"{normalized(need.name)}{extras}{need.specifier}{marker}"


def _each(lines: Iterable[str]) -> list[str]:
    return [plain(line) for line in lines]


def _option(line: str) -> str:
    """Write a line that names an index; a folder as an address, which has no blanks."""
    option, _, value = line.partition(" ")
    if value and not reqfile.is_address(value) and not value.startswith("$"):
        value = Path(value).as_uri()
    return f"{option} {value}".strip()


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _document(kept: Mapping[str, object], lines: Sequence[str]) -> Mapping[str, object]:
    """Return a pyproject.toml: a workspace of its own, or uv would look for one above it."""
    project = {"name": kept["name"], "version": "0", "dependencies": _each(lines)}
    extras = kept.get("optional-dependencies")
    if isinstance(extras, Mapping):
        project["optional-dependencies"] = {key: _each(value) for key, value in extras.items()}
    own = {key: kept[key] for key in ("index", "sources") if key in kept}
    return {"project": project, "tool": {"uv": {"workspace": {}, **own}}}
