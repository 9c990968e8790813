"""TOML tables read into typed structs, with every issue gathered before one is raised.

The shape of a table is a `msgspec.Struct`; its faults are reported by path, such as
``tool.torchship.data[1].sha256``, and a misspelt key with the nearest one that exists.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, get_args, get_origin

import msgspec

from torchship.errors import ProjectError
from torchship.project import textfile

Shape = TypeVar("Shape", bound=msgspec.Struct)

_WORDS = {
    "`str`": "a string",
    "`int`": "a whole number",
    "`float`": "a number",
    "`bool`": "true or false",
    "`array`": "a list",
    "`object`": "a table",
    "`datetime`": "a time",
    "`null`": "nothing",
}


# as tomllib tells of them
_ESCAPES = ("Unescaped '\\' in a string", "Invalid hex value")
_KEYS = (
    "Invalid initial character for a key part",
    "Invalid statement",
    "Expected ']' at the end of a table declaration",
    "Expected '=' after a key in a key/value pair",
)
_PLACE = re.compile(r"\(at line ([0-9]+), column ([0-9]+)\)")


class Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of the structs that `read` fills: unknown keys are refused."""


def parse(path: Path, error: type[ProjectError] = ProjectError) -> Mapping[str, object]:
    """Read a TOML file; raise ``error`` with the line where it is not TOML or not UTF-8."""
    text = ""
    try:
        text = textfile.read(path).decode("utf-8")
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise error(
            f"{path.name} is not valid TOML: {fault}", hint=_hint(text, str(fault))
        ) from None
    except UnicodeDecodeError as fault:
        raise error(f"{path.name} is not UTF-8: byte {fault.start} cannot be read") from None
    except OSError as fault:
        raise error(f"{path.name} cannot be read: {fault.strerror}") from None


def _hint(text: str, fault: str) -> str | None:
    """Say what to write, where the fault is one of the two that regular people make."""
    if fault.startswith(_ESCAPES):
        return r"single quotes keep backslashes: pattern = 'acc: (\d+)'"
    found = _PLACE.search(fault)
    if found is None or not fault.startswith(_KEYS):
        return None
    line = text.replace("\r\n", "\n").split("\n")[int(found[1]) - 1]
    at = line[int(found[2]) - 1 :][:1]
    if not at.isalnum() or (fault.startswith("Invalid statement") and at.isascii()):
        return None
    return (
        "quote the key, which has other letters than A-Z, a-z, 0-9, _ and -: "
        '[tool.torchship.metrics."정확도"]'
    )


def read(
    shape: type[Shape], table: Mapping[str, object], path: str, issues: list[str]
) -> Shape | None:
    """Convert a table; append what is wrong to ``issues`` and return None where anything is.

    Goes on after a fault, so that one look shows the user all of them.
    """
    try:
        return msgspec.convert(table, shape)
    except msgspec.ValidationError:
        pass  # which tells of one fault, and not in the reader's words
    before = len(issues)
    fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    found: dict[str, object] = {}
    for key, value in table.items():
        at = f"{path}.{key}" if path else key
        if key not in fields:
            issues.append(f"{at}: there is no such key{nearest(key, fields)}")
            continue
        found[fields[key].name] = _value(fields[key].type, value, at, issues)
    for name, field in fields.items():
        if field.required and name not in table:
            issues.append(f"{path}.{name}: is missing" if path else f"{name}: is missing")
    return shape(**found) if len(issues) == before else None


def nearest(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """Say which known word was probably meant: ``; did you mean 'packages'?``, or nothing."""
    import difflib  # nearly every word is known

    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _value(kind: object, value: object, at: str, issues: list[str]) -> object:
    inner = _inner(kind)
    if inner is not None and isinstance(value, list):
        return tuple(_table(inner, item, f"{at}[{i}]", issues) for i, item in enumerate(value))
    if inner is not None and isinstance(value, dict):
        if kind is inner:
            return read(inner, value, at, issues)
        return {key: _table(inner, item, f"{at}.{key}", issues) for key, item in value.items()}
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as fault:
        issues.append(_words(str(fault), at))
        return None


def _table(
    inner: type[msgspec.Struct], value: object, at: str, issues: list[str]
) -> msgspec.Struct | None:
    if isinstance(value, dict):
        return read(inner, value, at, issues)
    issues.append(f"{at}: expected a table")
    return None


def _inner(kind: object) -> type[msgspec.Struct] | None:
    """Return the struct that a field holds one or many of, if it holds any."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    if get_origin(kind) is None:
        return None
    for argument in get_args(kind):
        if isinstance(argument, type) and issubclass(argument, msgspec.Struct):
            return argument
    return None


def _words(message: str, at: str) -> str:
    """Turn msgspec's ``Expected `str`, got `int` - at `$[0]` `` into a sentence with its path."""
    text, _, place = message.partition(" - at `$")
    text = (text[:1].lower() + text[1:]).replace(" | null`", "`")
    for type_name, words in _WORDS.items():
        text = text.replace(type_name, words)
    return f"{at}{place.rstrip('`')}: {text}"
