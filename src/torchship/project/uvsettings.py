"""uv's own settings, the project's and the user's: what of them is followed.

uv is never shown the project's ``uv.toml`` or ``[tool.uv]``: some of what these may say has uv
build packages, which runs the packages' own code. They are read here, by a list of what is
harmless (indexes, and which versions are wanted), and told to uv in a file of our own; decision
18 has the reasons. The user's settings are read by the same list, for nothing of theirs is to
have a stranger's package built either.

Source: uv's documentation, "Configuration files" and "Settings".
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from torchship.errors import ProjectError, UsageError
from torchship.project import reqfile, tables
from torchship.project.project import PYPROJECT

UV_TOML = "uv.toml"

# What may stand at the top and in `pip`. New settings of uv's count when they are listed here.
_SHARED = frozenset(
    {
        *("index", "index-url", "extra-index-url", "find-links", "no-index"),
        *("resolution", "prerelease", "prerelease-package", "torch-backend"),
        *("exclude-newer", "exclude-newer-package", "dependency-metadata"),
    }
)
PLACES = frozenset({"index", "index-url", "extra-index-url", "find-links", "no-index"})
"""Settings that say where to look; a lock already says what is wanted."""

_REQUIREMENTS = ("constraint-dependencies", "override-dependencies")
_PROJECT = _SHARED | {*_REQUIREMENTS, "exclude-dependencies"}
# How this machine reaches an index, and whom it trusts, is the user's to say.
_PERSONAL = _SHARED | {"keyring-provider", "allow-insecure-host"}
_USER = _PERSONAL | {
    *("system-certs", "native-tls", "http-proxy", "https-proxy", "no-proxy"),
    *("offline", "no-cache", "cache-dir", "concurrent-downloads"),
}
_ENTRY = frozenset(
    {"name", "url", "default", "explicit", "format", "authenticate", "ignore-error-codes"}
)
_METADATA = frozenset({"name", "version", "requires-dist", "requires-python", "provides-extra"})

# Variables of uv's: what is read here instead, places to look in, and other paths.
REQUIREMENTS: Mapping[str, str] = MappingProxyType(
    {"UV_CONSTRAINT": "constraints", "UV_OVERRIDE": "overrides", "UV_EXCLUDE": "excludes"}
)
"""Files of requirements that the user has uv heed always; the names of uv's options for them."""

_READ_HERE = REQUIREMENTS.keys() | {
    *("UV_CONFIG_FILE", "UV_NO_CONFIG", "UV_PROJECT", "UV_WORKING_DIR", "UV_BUILD_CONSTRAINT"),
}
_LISTS = {
    **dict.fromkeys(("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")),
    "UV_FIND_LINKS": ",",
}
_PATHS = frozenset({"SSL_CERT_DIR", "SSL_CERT_FILE", "SSL_CLIENT_CERT", "UV_CACHE_DIR"})

_BUILDS = "nothing is built from source"
_EXTRAS = "list what is needed in `dependencies`"
_WHOLE = "what is needed is in the image with all that it needs"
_YOURS = "set it in your own uv settings"
_UNFOLLOWED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("no-binary", "no-binary-package"), _BUILDS),
        **dict.fromkeys(("all-extras", "extra", "group"), _EXTRAS),
        **dict.fromkeys(("no-deps", "no-emit-package"), _WHOLE),
        **dict.fromkeys(("allow-insecure-host", "keyring-provider"), _YOURS),
    }
)


class UvSettings(Struct, frozen=True, kw_only=True):
    """A project's settings that are followed, as ``uv.toml`` has them, paths as they stand there.

    ``file`` names where in the project they are, and is empty where there are none;
    ``unfollowed`` says in lines what else of them would have changed what is resolved.
    """

    table: Mapping[str, object] = MappingProxyType({})
    file: str = ""
    unfollowed: tuple[str, ...] = ()


def of_project(
    root: Path, document: Mapping[str, object], *, following: Collection[str] | None = None
) -> UvSettings:
    """Read a project's settings: ``uv.toml``, else ``[tool.uv]`` of its pyproject.toml.

    ``document`` is the latter file; ``following`` are the settings that count, unless all do. As
    for uv, one of the two counts; unlike for uv, none of the folders above does. Raises
    `ProjectError` for what is not of its form, and for requirements that no wheel satisfies.
    """
    name, where, table = PYPROJECT, "[tool.uv]", tool_uv(document)
    if os.path.lexists(root / UV_TOML):
        name = where = UV_TOML
        table = tables.parse(root / UV_TOML)
    try:
        counting = _PROJECT if following is None else _PROJECT & set(following)
        found = _followed(table, counting, _SHARED & counting, where)
    except ValueError as fault:
        raise ProjectError(f"{fault}: uv's settings in {name} have another form") from None
    pip = table.get("pip")
    return UvSettings(
        table=MappingProxyType(found),
        file=name if found else "",
        unfollowed=tuple(
            f"{key} of {where} is not followed: {why}"
            for key, why in _UNFOLLOWED.items()
            if key in table or (isinstance(pip, dict) and key in pip)
        ),
    )


def of_user(environ: Mapping[str, str] | None = None) -> Mapping[str, object]:
    """Read the user's settings, and the machine's under them, with absolute paths.

    A file that ``UV_CONFIG_FILE`` names stands for both, and ``UV_NO_CONFIG`` for there being
    none. Raises `UsageError` for a file that uv could not read either.
    """
    environ = os.environ if environ is None else environ
    merged: dict[str, object] = {}
    for path in _files(environ):
        try:
            table = tables.parse(path)
            found = placed(_followed(table, _USER, _PERSONAL, str(path)), path.parent)
        except (ProjectError, ValueError) as fault:
            raise UsageError(f"uv's settings in {path} cannot be read: {fault}") from None
        merged = merge(merged, found)
    return merged


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the user's environment for a uv that starts in another folder than the user did.

    Paths are made absolute. What names files of settings and of requirements is left out: these
    are read and told by us.
    """
    found = {name: value for name, value in environ.items() if name not in _READ_HERE}
    for name, between in _LISTS.items():
        words = (_from_here(word) for word in found.get(name, "").split(between))
        if name in found:
            found[name] = (between or " ").join(words)
    for name in _PATHS & found.keys():
        found[name] = found[name] and str(Path(found[name]).absolute())
    return {**found, "UV_PYTHON_DOWNLOADS": "never"}


def _from_here(word: str) -> str:
    """Make a folder absolute, which may have an index's name before it, as ``name=folder``."""
    name, equals, place = word.partition("=") if re.match(r"[\w.-]+=", word) else ("", "", word)
    if not place or reqfile.is_address(place):
        return word
    return f"{name}{equals}{Path(place).absolute()}"


def merge(over: Mapping[str, object], under: Mapping[str, object]) -> dict[str, object]:
    """Merge two tables as uv merges its files: lists are joined, of the rest ``over`` wins."""
    merged = {**under, **over}
    for key in over.keys() & under.keys():
        first, second = over[key], under[key]
        if isinstance(first, list) and isinstance(second, list):
            merged[key] = [*first, *second]
        elif isinstance(first, dict) and isinstance(second, dict):
            merged[key] = merge(first, second)
    return merged


def placed(table: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Return settings that stand in a folder with absolute paths, as they may stand anywhere."""
    found = dict(table)
    for key, value in table.items():
        if key == "index-url" and isinstance(value, str):
            found[key] = _absolute(value, folder)
        elif key in ("extra-index-url", "find-links") and isinstance(value, list):
            found[key] = [_absolute(each, folder) for each in value]
        elif key == "index" and isinstance(value, list):
            found[key] = [{**each, "url": _absolute(each["url"], folder)} for each in value]
        elif key == "pip" and isinstance(value, dict):
            found[key] = placed(value, folder)
    return found


def unpinned(table: Mapping[str, object]) -> dict[str, object]:
    """Return settings by which every index is asked for every distribution.

    A file that is known by its sha256 may come from any; and its version is known, too, so that
    nothing is left of what says which versions are wanted.
    """
    wanted = {"exclude-newer", "exclude-newer-package", "resolution", *_REQUIREMENTS}
    found = {key: value for key, value in table.items() if key not in wanted}
    indexes, pip = found.get("index"), found.get("pip")
    if isinstance(indexes, list):
        found["index"] = [{k: v for k, v in one.items() if k != "explicit"} for one in indexes]
    if isinstance(pip, dict):
        found["pip"] = unpinned(pip)
    return found


def places(
    table: Mapping[str, object],
    keys: Sequence[str] = ("index-url", "extra-index-url", "find-links", "index"),
) -> tuple[str, ...]:
    """Return all the addresses and folders that settings have wheels looked for in."""
    found: list[str] = []
    for key in keys:
        value = table.get(key, [])
        entries = value if isinstance(value, list) else [value]
        found += [str(each["url"] if isinstance(each, dict) else each) for each in entries]
    pip = table.get("pip")
    return (*found, *(places(pip, keys) if isinstance(pip, dict) else ()))


def tool_uv(document: Mapping[str, object]) -> Mapping[str, object]:
    """Return ``[tool.uv]`` of a pyproject.toml; an empty table where it has none."""
    tool = document.get("tool")
    table = tool.get("uv") if isinstance(tool, dict) else None
    return table if isinstance(table, dict) else {}


def indexes(table: Mapping[str, object], where: str) -> list[dict[str, object]]:
    """Return the entries of ``index``; raise `ValueError` where they have another form."""
    found = []
    for i, entry in enumerate(_list(table.get("index", []), f"{where} index")):
        if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
            raise ValueError(f"{where} index[{i}]")
        found.append({key: value for key, value in entry.items() if key in _ENTRY})
    return found


def _followed(
    table: Mapping[str, object], keys: Collection[str], inner: Collection[str], where: str
) -> dict[str, object]:
    """Return of a table what is listed; raise `ValueError` that names what has another form."""
    found = {key: value for key, value in table.items() if key in keys}
    if "index" in found:
        found["index"] = indexes(table, where)
    for key in ("extra-index-url", "find-links"):
        if key in found:
            found[key] = [_text(each, f"{where} {key}") for each in _list(found[key], where)]
    if "index-url" in found:
        found["index-url"] = _text(found["index-url"], f"{where} index-url")
    for key in _REQUIREMENTS:
        if key in found:
            found[key] = _checked(found[key], f"{where} {key}")
    if "dependency-metadata" in found:
        at = f"{where} dependency-metadata"
        entries = _list(found["dependency-metadata"], at)
        found["dependency-metadata"] = [_metadata(each, at) for each in entries]
    pip = table.get("pip")
    if inner and isinstance(pip, dict):
        within = _followed(pip, inner, (), f"{where} pip")
        if within:
            found["pip"] = within
    return found


def _metadata(entry: object, where: str) -> dict[str, object]:
    if not isinstance(entry, dict):
        raise ValueError(where)
    found = {key: value for key, value in entry.items() if key in _METADATA}
    if "requires-dist" in found:
        found["requires-dist"] = _checked(found["requires-dist"], f"{where} requires-dist")
    return found


def _checked(value: object, where: str) -> list[str]:
    """Return a list of requirements, each of which an index can answer with a wheel."""
    lines = [_text(line, f"{where}[{i}]").strip() for i, line in enumerate(_list(value, where))]
    for i, line in enumerate(lines):
        reqfile.check(line, f"{where}[{i}]")
    return lines


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(where)
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(where)
    return value


def _absolute(place: str, folder: Path) -> str:
    return place if reqfile.is_address(place) else str((folder / place).resolve())


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files that there are, the strongest first."""
    if environ.get("UV_CONFIG_FILE"):
        yield Path(environ["UV_CONFIG_FILE"]).absolute()
        return
    if environ.get("UV_NO_CONFIG", "").lower() not in ("", "0", "false", "no", "off", "n", "f"):
        return
    home = Path(environ.get("HOME") or Path.home())
    own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "uv" / UV_TOML
    folders = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    shared = (*(Path(folder, "uv", UV_TOML) for folder in folders), Path("/etc/uv", UV_TOML))
    if own.is_file():
        yield own
    yield from [path for path in shared if path.is_file()][:1]
