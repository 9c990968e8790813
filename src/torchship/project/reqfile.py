r"""Requirements files, read as pip reads them, each line into what it means.

Format: pip's "Requirements File Format". Whoever resolves is given what was read here and never
the file itself: where two programs read one file, the one that is asked whether it is harmless
may see a comment where the other sees an option.
"""

from __future__ import annotations

import codecs
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from torchship import canonical
from torchship.digest import Digest
from torchship.errors import ProjectError
from torchship.project import tables, textfile
from torchship.project.names import normalized
from torchship.project.project import PYPROJECT

_LIMIT = 4 << 20  # bytes; nobody writes a longer one, and every line is parsed
_COMMENT = re.compile(r"(^|\s+)#.*$")
_OPTION = re.compile(r"(--[a-z][a-z-]*|-[a-zA-Z])(?:\s*=\s*|\s+|(?<=^-[a-zA-Z])(?=\S)|$)(.*)")
_NEXT = re.compile(r"\s(?=--?[a-zA-Z])")  # pip takes several options on one line
_HASH = re.compile(r"--hash[=\s]\s*([a-z0-9]+):([0-9a-fA-F]+)")
_VCS = re.compile(r"(git|hg|bzr|svn)\+")
# The plainest of PEP 508's requirements, as most are: a name, and one release to compare with.
_PLAIN = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?( ?(==|>=|<=|!=|~=) ?[0-9]+(\.[0-9]+)+)?"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# What pip and uv take for a file of that name, where there is one.
_ARCHIVE = re.compile(r".+\.(whl|zip|t[bglx]z|tbz2|tar(\.[a-z0-9]+)?)", re.IGNORECASE)
_UNWRITABLE = re.compile(r"[\\\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")
_LONG = {
    "-c": "--constraint",
    "-e": "--editable",
    "-f": "--find-links",
    "-i": "--index-url",
    "-r": "--requirement",
    "--pypi-url": "--index-url",
}
_INDEXES = ("--index-url", "--extra-index-url", "--find-links", "--no-index")
# What pip does by them is done anyway, or is none of a resolution's business.
_MEANINGLESS = ("--prefer-binary", "--require-hashes", "--trusted-host", "--use-feature")
_KNOWN = (
    *("--requirement", "--constraint", "--editable", "--pre", "--only-binary", "--no-binary"),
    *_INDEXES,
    *_MEANINGLESS,
)


class Reader:
    """Reads requirements files, each once, whatever includes it.

    ``requirements`` and ``constraints`` are the lines that ask for a distribution, and those
    that hold for what is asked for anyway: PEP 508, each checked, none with an address.
    ``options`` are the lines that name indexes, with absolute paths. ``digests`` has, by path
    below the root, the digest of each file's meaning; ``hashes`` the sha256 that a requirement
    allows, by normalised name; ``prerelease`` tells that a file says ``--pre``. ``notes`` are
    lines to be said where the requirements are resolved.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._read: set[tuple[str, bool]] = set()
        self.requirements: list[str] = []
        self.constraints: list[str] = []
        self.options: list[str] = []
        self.digests: dict[str, Digest] = {}
        self.hashes: dict[str, set[str]] = {}
        self.prerelease = False
        self.notes: list[str] = []

    def file(self, path: Path, included: str = "", *, required: bool = True) -> None:
        """Read a file and all that it includes; of one that is not ``required``, constraints.

        Raises `ProjectError` with file and line for what cannot become a wheel of a lock: a
        path, a repository, an editable, an option that has something built, a file outside
        the root.
        """
        real = path.resolve()
        if not real.is_relative_to(self._root):
            what = f"{included} includes {path}" if included else f"{path.name} links to {real}"
            raise ProjectError(
                f"{what}, which is outside the project",
                hint="put it inside, so that the project is whole wherever it is built",
            )
        name = real.relative_to(self._root).as_posix()
        if (name, required) in self._read:
            return
        self._read.add((name, required))
        lines = list(logical_lines(_text(real, name, included)))
        self.digests[name] = Digest.of(canonical.encode([line for _, line in lines]))
        for number, line in lines:
            at = f"{name}, line {number}"
            if not line.startswith("-"):
                self._requirement(line, at, required=required)
                continue
            for words in _NEXT.split(line):
                self._option(words, at, real.parent, required=required)

    def _requirement(self, line: str, at: str, *, required: bool) -> None:
        if self._is_own(line):
            self._own_package(line, at, required=required)
            return
        bare, *rest = re.split(r"\s(?=--[a-z])", line, maxsplit=1)
        bare = bare.strip()
        check(bare, at)
        unread = _HASH.sub("", rest[0]).split() if rest else []
        if unread:
            raise ProjectError(
                f"{at}: {unread[0]} is no option of a requirement that could be followed here",
                hint="options such as --config-settings are for building from source, and "
                "torchship takes wheels as they are: leave it out",
            )
        (self.requirements if required else self.constraints).append(bare)
        hashes = [(match[1], match[2].lower()) for match in _HASH.finditer(line)]
        allowed = {text for kind, text in hashes if kind == "sha256"}
        if hashes and not allowed:
            raise ProjectError(
                f"{at}: the hashes of {name_of(bare)} are {hashes[0][0]}, and files are pinned by "
                "their sha256",
                hint="write --hash=sha256:..., as `pip-compile --generate-hashes` does",
            )
        if allowed:
            self.hashes.setdefault(name_of(bare), set()).update(allowed)

    def _option(self, words: str, at: str, folder: Path, *, required: bool) -> None:
        match = _OPTION.fullmatch(words.strip())
        option, value = (match[1], match[2]) if match else (words.split()[0], "")
        option, value = _LONG.get(option, option), _unquoted(value, at)
        if option in ("--requirement", "--constraint"):
            if "://" in value:
                raise ProjectError(f"{at}: a file on the network cannot be included: {bare(value)}")
            self.file(folder / value, at, required=required and option == "--requirement")
        elif option == "--editable" and self._is_own(value):
            self._own_package(words.strip(), at, required=required)
        elif option == "--editable":
            raise ProjectError(
                f"{at}: an editable install cannot go into an image: {bare(value)}",
                hint="code inside the project is copied into the image anyway; "
                "for anything else, build a wheel and name its folder with --find-links",
            )
        elif option == "--pre":
            self.prerelease = True
        elif option in _INDEXES:
            self._index(option, value, at, folder)
        elif option == "--no-binary" or (option == "--only-binary" and ":none:" in value):
            raise ProjectError(
                f"{at}: {option} asks for a build from source, and torchship builds nothing: "
                "a build would run the package's own code on this machine",
                hint="leave the line out; where a package has no wheel, build one into a folder "
                "(`pip wheel --no-deps -w wheels NAME`) and write `--find-links ./wheels`",
            )
        elif option not in _KNOWN:
            raise ProjectError(
                f"{at}: {option} is not an option that torchship "
                f"knows{tables.nearest(option, _KNOWN)}",
                hint="leave the line out; a setting of this machine belongs into pip's settings",
            )

    def _is_own(self, path: str) -> bool:
        """Tell whether a path is the project's own: pip starts at the working directory."""
        return path in (".", "./") or path.rstrip("/") == str(self._root)

    def _own_package(self, line: str, at: str, *, required: bool) -> None:
        """Take what the project's own package needs; its code goes into the image anyway."""
        path = self._root / PYPROJECT
        document = tables.parse(path) if path.is_file() else {}
        table = document.get("project")
        table = table if isinstance(table, dict) else {}
        if not table or "dependencies" in table.get("dynamic", ()):
            raise ProjectError(
                f"{at}: what `{line}` needs, only a build of the project could tell",
                hint=f"list it here, or in `dependencies` of [project] in {PYPROJECT}",
            )
        needs = dependencies(table)
        (self.requirements if required else self.constraints).extend(needs)
        self.digests[PYPROJECT] = Digest.of(canonical.encode(list(needs)))
        where = "its modules are found in /workspace"
        if next(self._root.glob("src/*.py"), None) is not None:
            where = 'for modules in src, set environment = { PYTHONPATH = "/workspace/src" }'
        elif (self._root / "src").is_dir():
            where = "its packages are found in /workspace/src"
        self.notes.append(f"{at}: `{line}` is in the image as it is, not installed; {where}")

    def _index(self, option: str, value: str, at: str, folder: Path) -> None:
        if not value and option != "--no-index":
            raise ProjectError(f"{at}: {option} names nothing")
        if is_address(value) or value.startswith("$"):
            if re.search(r"\s", value) or _UNWRITABLE.search(value):
                raise ProjectError(f"{at}: {option} takes one address, not {bare(value)!r}")
        elif option != "--no-index":
            # Path's own raises where it knows no such user
            place = (folder / os.path.expanduser(value)).resolve()  # noqa: PTH111
            if not place.exists():
                raise ProjectError(f"{at}: {option} names {value}, which does not exist")
            value = str(place)
        if option == "--index-url":  # the last is the one
            self.options = [line for line in self.options if not line.startswith(f"{option} ")]
        self.options.append(f"{option} {value}".strip())


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


def check(line: str, at: str) -> None:
    """Raise `ProjectError` for a requirement that no index can answer with a wheel."""
    url = ""
    if re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[^]]*\])?\s*@", line):
        url = line.partition("@")[2].strip()
    elif "://" in line or line.startswith(("/", ".", "file:")) or re.match(r"[\w.-]+/", line):
        url = line
    name = _NAME.match(line)
    if url or (name is not None and _ARCHIVE.fullmatch(name[0])):
        kind = "a file or an address"
        if _VCS.match(url):
            kind = "a source repository"
        elif not url or url.startswith(("/", ".", "file:")):
            kind = "a local path"
        raise ProjectError(
            f"{at}: {kind} cannot be pinned: {bare(url or line)}",
            hint="build a wheel into a folder (`pip wheel --no-deps -w wheels ...`), "
            "write `--find-links ./wheels` and the package's plain name",
        )
    if "${" in line:
        raise ProjectError(
            f"{at}: {line!r} depends on a variable of the environment",
            hint="write its value: variables are for the addresses of indexes, which hold secrets",
        )
    if _PLAIN.fullmatch(line):
        return  # every build comes by here: what reads the others takes long to import
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(line)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise ProjectError(f"{at}: {line!r} is not a requirement: {reason}") from None
    if _UNWRITABLE.search(line):  # a marker's text may hold anything
        raise ProjectError(f"{at}: {line!r} is not a requirement that stands on one line")


def dependencies(project: Mapping[str, object]) -> tuple[str, ...]:
    """Return ``dependencies`` of a pyproject.toml's ``[project]``, checked.

    Raises `ProjectError` with the path to what cannot become a wheel of the lock.
    """
    needs = project.get("dependencies", [])
    if not isinstance(needs, list) or not all(isinstance(item, str) for item in needs):
        raise ProjectError(f"project.dependencies in {PYPROJECT} is not a list of strings")
    needs = [text.strip() for text in needs]
    for i, text in enumerate(needs):
        check(text, f"project.dependencies[{i}]")
    return tuple(needs)


def name_of(line: str) -> str:
    """Return the normalised name that a requirement, checked, begins with."""
    name = _NAME.match(line)
    assert name is not None
    return normalized(name[0])


def is_name(text: str) -> bool:
    """Tell whether a text is a distribution's name (PEP 508)."""
    return re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", text) is not None


def is_address(text: str) -> bool:
    """Tell an address from a path."""
    return "://" in text or text.startswith("file:")


def bare(url: str) -> str:
    """Take a user's name and password out of an address before it is shown."""
    return re.sub(r"//[^/@]*@", "//", url)


def _unquoted(value: str, at: str) -> str:
    """Take the quotes off a value, as pip does; what is a path may go on after a blank."""
    if not any(letter in value for letter in "\"'\\"):
        return value.strip()
    try:
        return " ".join(shlex.split(value))
    except ValueError as error:
        raise ProjectError(f"{at}: the quotes of {bare(value)!r} do not match: {error}") from None


def _text(path: Path, name: str, included: str) -> str:
    try:
        found = textfile.read(path, limit=_LIMIT)
    except OSError as error:
        by = f" (included by {included})" if included else ""
        raise ProjectError(f"{name}{by} cannot be read: {error.strerror}") from None
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError:
        hint = "save the file as UTF-8, or write its comments in ASCII"
        if found[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            hint = "PowerShell's `>` writes UTF-16: save the file as UTF-8"
        raise ProjectError(f"{name} is not UTF-8", hint=hint) from None
