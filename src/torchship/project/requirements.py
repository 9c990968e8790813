"""What the project says it needs: its requirements file, all that this includes, and its digest.

Format: pip's "Requirements File Format". uv reads the files; this module reads them too, to
know what the resolution depends on and to refuse, in plain words, what no wheel can satisfy.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct, field

from torchship import canonical
from torchship.digest import Digest
from torchship.errors import ProjectError
from torchship.project import tables
from torchship.project.names import normalized
from torchship.project.project import PYPROJECT, Project

_LIMIT = 4 << 20  # bytes; nobody writes a longer one, and every line is parsed
_COMMENT = re.compile(r"(^|\s+)#.*$")
_OPTION = re.compile(r"(-[a-zA-Z]|--[a-z][a-z-]*)(?:\s*=\s*|\s+|(?<=^-[a-zA-Z])(?=\S)|$)(.*)")
_HASH = re.compile(r"--hash[=\s]\s*([a-z0-9]+):([0-9a-fA-F]+)")
_VCS = re.compile(r"(git|hg|bzr|svn)\+")
# The plainest of PEP 508's requirements, as most are: a name, and one release to compare with.
_PLAIN = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?( ?(==|>=|<=|!=|~=) ?[0-9]+(\.[0-9]+)+)?"
)
_LONG = {"-i": "--index-url", "-f": "--find-links", "-r": "--requirement", "-c": "--constraint"}
_INDEX = ("--index-url", "--extra-index-url", "--find-links", "--no-index")


class Requirements(Struct, frozen=True, kw_only=True):
    """What a project needs, as its files say it.

    ``file`` is what uv is given (None: nothing is needed); ``digests`` has, by path in the
    project, the digest of each file's meaning: comments and blank lines change nothing.
    ``options`` are the lines that name indexes, with absolute paths; ``hashes`` the sha256
    that a requirement allows, by normalised name; ``joined`` is what uv is given instead of
    ``file`` where that has lines which pip joins and uv does not; ``prerelease`` tells that a
    file says ``--pre``. ``names`` are the distributions that are required by name, normalised; None
    where a lock does not tell them from those that they need.
    """

    file: Path | None
    digests: Mapping[str, Digest] = field(default_factory=lambda: MappingProxyType({}))
    options: tuple[str, ...] = ()
    hashes: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    joined: str | None = None
    prerelease: bool = False
    names: frozenset[str] | None = frozenset()

    @property
    def is_lock(self) -> bool:
        """True where the file is itself a lock (PEP 751), to be taken as it is."""
        return (
            self.file is not None
            and self.file.name.endswith(".toml")
            and (self.file.name != PYPROJECT)
        )


def read(project: Project) -> Requirements:
    """Read the project's requirements and all that they include.

    Raises `ProjectError` with file and line for what cannot become a wheel of the lock: a
    path, a repository, an editable, a file outside the project.
    """
    if project.requirements is None:
        return Requirements(file=None)
    path = project.root / project.requirements
    if path.name == PYPROJECT:
        return _pyproject(path, project.requirements)
    if path.suffix == ".toml":
        meaning = Digest.of(canonical.encode(_plain(tables.parse(path))))
        return Requirements(
            file=path, digests=MappingProxyType({project.requirements: meaning}), names=None
        )
    reader = _Reader(project.root)
    reader.file(path)
    return Requirements(
        file=path,
        digests=MappingProxyType(reader.digests),
        options=tuple(dict.fromkeys(reader.options)),
        hashes=MappingProxyType({k: frozenset(v) for k, v in reader.hashes.items()}),
        joined=reader.joined(path),
        prerelease=reader.prerelease,
        names=frozenset(reader.names),
    )


def _pyproject(path: Path, name: str) -> Requirements:
    document = tables.parse(path)
    table = document.get("project")
    table = table if isinstance(table, dict) else {}
    needs = table.get("dependencies", [])
    if not isinstance(needs, list) or not all(isinstance(item, str) for item in needs):
        raise ProjectError(f"project.dependencies in {PYPROJECT} is not a list of strings")
    if "dependencies" in table.get("dynamic", ()):
        raise ProjectError(
            f"{PYPROJECT} has dynamic dependencies, which only its build could tell",
            hint="list them in requirements.txt",
        )
    needs = [text.strip() for text in needs]
    for i, text in enumerate(needs):
        _check(text, f"project.dependencies[{i}]")
    tool = document.get("tool")
    uv = tool.get("uv", {}) if isinstance(tool, dict) else {}
    meaning = [needs, table.get("requires-python"), _plain(uv)]
    return Requirements(
        file=path,
        digests=MappingProxyType({name: Digest.of(canonical.encode(meaning))}),
        names=frozenset(_name(text) for text in needs),
    )


class _Reader:
    """Reads requirements files, each once, whatever includes it."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.digests: dict[str, Digest] = {}
        self.options: list[str] = []
        self.hashes: dict[str, set[str]] = {}
        self.prerelease = False
        self.names: set[str] = set()
        self._read: set[tuple[str, bool]] = set()

    def file(self, path: Path, included: str = "", *, required: bool = True) -> None:
        real = path.resolve()
        if not real.is_relative_to(self._root):
            raise ProjectError(
                f"{included} includes {path}, which is outside the project",
                hint="put it inside, so that the project is whole wherever it is built",
            )
        name = real.relative_to(self._root).as_posix()
        if (name, required) in self._read:
            return
        self._read.add((name, required))
        lines = list(logical_lines(_text(real, name, included)))
        self.digests[name] = Digest.of(canonical.encode([line for _, line in lines]))
        for number, line in lines:
            self._line(line, f"{name}, line {number}", real.parent, required)

    def joined(self, path: Path) -> str | None:
        r"""Return the file's text, each requirement on one line, where a ``\\`` parts one of them.

        uv reads a requirement that goes on with its hashes, and no other that goes on.
        """
        text = _text(path.resolve(), path.name, "")
        if not re.search(r"\\[ \t]*\r?\n(?!\s*--hash)", text):
            return None
        lines = []
        for _, line in logical_lines(text):
            match = _OPTION.match(line) if line.startswith("-") else None
            option = _LONG.get(match[1], match[1]) if match else ""
            if match and option in ("--requirement", "--constraint", "--find-links"):
                value = match[2].strip()
                apart = "://" in value or value.startswith(("file:", "$"))
                line = f"{option} {value if apart else (path.parent / value).resolve()}"
            lines.append(line)
        return "\n".join([*lines, ""])

    def _line(self, line: str, at: str, folder: Path, required: bool) -> None:
        if not line.startswith("-"):
            _check(line, at)
            if required:  # a constraint asks for nothing
                self.names.add(_name(line))
            self._note_hashes(line)
            return
        match = _OPTION.match(line)
        option, value = (match[1], match[2].strip()) if match else (line, "")
        option = _LONG.get(option, option)
        if option in ("--requirement", "--constraint"):
            if "://" in value:
                raise ProjectError(
                    f"{at}: a file on the network cannot be included: {_bare(value)}"
                )
            self.file(folder / value, at, required=required and option == "--requirement")
        elif option in ("-e", "--editable"):
            raise ProjectError(
                f"{at}: an editable install cannot go into an image: {_bare(value)}",
                hint="code inside the project is copied into the image anyway; "
                "for anything else, build a wheel and name its folder with --find-links",
            )
        elif option == "--pre":
            self.prerelease = True
        elif option in _INDEX:
            self._note_index(option, value, at, folder)

    def _note_index(self, option: str, value: str, at: str, folder: Path) -> None:
        if option != "--no-index" and "://" not in value and not value.startswith(("file:", "$")):
            place = (folder / value).resolve()
            if not place.exists():
                raise ProjectError(f"{at}: {option} names {value}, which does not exist")
            value = str(place)
        self.options.append(f"{option} {value}".strip())

    def _note_hashes(self, line: str) -> None:
        allowed = {match[2].lower() for match in _HASH.finditer(line) if match[1] == "sha256"}
        if allowed:
            self.hashes.setdefault(_name(line), set()).update(allowed)


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    r"""Yield (number, line) with ``\``-continued lines joined, comments and blanks left out."""
    joined, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        start = start or number
        if line.rstrip().endswith("\\") and not line.lstrip().startswith("#"):
            joined += line.strip()[:-1].rstrip() + " "
            continue
        whole = _COMMENT.sub("", joined + line.strip()).strip()
        if whole:
            yield start, whole
        joined, start = "", 0
    if joined.strip():
        yield start, _COMMENT.sub("", joined).strip()


def _text(path: Path, name: str, included: str) -> str:
    try:
        if path.stat().st_size > _LIMIT:
            raise ProjectError(f"{name} is not a requirements file: it is larger than 4 MB")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        by = f" (included by {included})" if included else ""
        raise ProjectError(f"{name}{by} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        hint = "save the file as UTF-8, or write its comments in ASCII"
        if path.read_bytes()[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            hint = "PowerShell's `>` writes UTF-16: save the file as UTF-8"
        raise ProjectError(f"{name} is not UTF-8", hint=hint) from None


def _check(line: str, at: str) -> None:
    """Raise `ProjectError` for a requirement that no index can answer with a wheel."""
    bare = re.split(r"\s--[a-z]", line, maxsplit=1)[0].strip()
    url = ""
    if re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[^]]*\])?\s*@", bare):
        url = bare.partition("@")[2].strip()
    elif "://" in bare or bare.startswith(("/", ".", "file:")) or re.match(r"[\w.-]+/", bare):
        url = bare
    if url:
        kind = "a file or an address"
        if _VCS.match(url):
            kind = "a source repository"
        elif url.startswith(("/", ".", "file:")):
            kind = "a local path"
        raise ProjectError(
            f"{at}: {kind} cannot be pinned: {_bare(url)}",
            hint="build a wheel into a folder (`pip wheel --no-deps -w wheels ...`), "
            "write `--find-links ./wheels` and the package's plain name",
        )
    if _PLAIN.fullmatch(bare):
        return  # every build comes by here: what reads the others takes long to import
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(bare)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise ProjectError(f"{at}: {bare!r} is not a requirement: {reason}") from None


def _name(line: str) -> str:
    """Return the normalised name that a requirement, checked, begins with."""
    name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    assert name is not None
    return normalized(name[0])


def _bare(url: str) -> str:
    """Take a user's name and password out of an address before it is shown."""
    return re.sub(r"//[^/@]*@", "//", url)


def _plain(value: object) -> object:
    """Make a TOML value one of JSON: times become text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) else str(value)
