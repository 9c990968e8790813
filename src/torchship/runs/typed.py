"""Frozen dataclasses to JSON values and back, driven by their annotations alone.

What is read is a stranger's: every string, number and container has a limit, and every fault
is told with its path, such as ``predicate.runs[3].metrics.test_accuracy``. Unknown fields are
left alone, as in-toto asks (spec/v1, "Parsing rules").
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from torchship.digest import Digest
from torchship.errors import InvalidDigest

LONGEST = 1 << 16
"""Characters of a string."""

MOST = 100_000
"""Entries of one list or table."""

LARGEST_WHOLE = 1 << 63

Shape = TypeVar("Shape")

_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Faults:
    """Gathers what is wrong, each by its path; a few are enough to see what a document is."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def note(self, path: str, fault: str) -> None:
        """Add one."""
        if len(self.found) < 20:
            self.found.append(f"{path} {fault}")


def to_json(value: object) -> object:
    """Return a dataclass as a JSON value; fields that hold their default None are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        kinds = _kinds(type(value))
        return {
            camel(each.name): _write(kinds[each.name], getattr(value, each.name))
            for each in fields(value)
            if getattr(value, each.name) is not None
        }
    return _write(object, value)


def _write(kind: object, value: object) -> object:
    kind, exact = _plain(kind)
    if isinstance(value, Mapping):
        inner = get_args(kind)[1] if get_args(kind) else object
        return {text(str(key)): _write(inner, item) for key, item in value.items()}
    if isinstance(value, tuple):
        inner = get_args(kind)[0] if get_args(kind) else object
        return [_write(inner, item) for item in value]
    if isinstance(value, float) and exact:
        return {"value": value, "hex": value.hex()}
    if isinstance(value, Digest):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime(_TIME)
    if isinstance(value, str):
        return text(value)
    return to_json(value) if is_dataclass(value) else value


def text(name: str) -> str:
    r"""Spell out what JSON has no words for: bytes that are not UTF-8 stand as ``\udcff``."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def from_json(shape: type[Shape], value: object, path: str, faults: Faults) -> Shape | None:
    """Return the dataclass that a JSON value stands for; note what is wrong, and return None."""
    before = len(faults.found)
    if not isinstance(value, dict):
        faults.note(path, f"is not an object: {_short(value)}")
        return None
    kinds = _kinds(shape)
    found = {}
    for each in fields(shape):  # type: ignore[arg-type]  # every Shape is a dataclass
        name = camel(each.name)
        if value.get(name) is not None:
            found[each.name] = _read(kinds[each.name], value[name], f"{path}.{name}", faults)
        elif _is_required(each):
            faults.note(f"{path}.{name}", "is missing")
    return shape(**found) if len(faults.found) == before else None


def _read(kind: object, value: object, path: str, faults: Faults) -> Any:  # noqa: ANN401
    kind, exact = _plain(kind)
    if exact:
        return _exact(value, path, faults)
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return from_json(kind, value, path, faults)
    if origin is tuple or origin is Mapping:
        return _many(origin, arguments, value, path, faults)
    if origin is Literal:
        if value in arguments and type(value) is str:
            return value
        faults.note(path, f"is {_short(value)}, not one of {', '.join(map(str, arguments))}")
        return None
    reader = _SCALARS[kind]
    found = reader(value)
    if found is None:
        faults.note(path, f"is not {_NAMES[kind]}: {_short(value)}")
    return found


def _many(
    origin: object, arguments: tuple[Any, ...], value: object, path: str, faults: Faults
) -> object:
    expected = list if origin is tuple else dict
    if not isinstance(value, expected):
        faults.note(path, f"is not {'a list' if expected is list else 'an object'}")
        return None
    if len(value) > MOST:
        faults.note(path, f"has {len(value)} entries, more than {MOST}")
        return None
    if isinstance(value, list):
        return tuple(
            _read(arguments[0], item, f"{path}[{place}]", faults)
            for place, item in enumerate(value)
        )
    for key in value:
        if len(key) > LONGEST:
            faults.note(path, f"has a name of {len(key)} characters")
            return None
    return MappingProxyType(
        {
            key: _read(arguments[1], item, f"{path}.{_name(key)}", faults)
            for key, item in value.items()
        }
    )


def _exact(value: object, path: str, faults: Faults) -> float | None:
    """Read ``{"value": 0.1, "hex": "0x1.999999999999ap-4"}``; both must say the same."""
    if not isinstance(value, dict):
        faults.note(path, "is not an object with `value` and `hex`")
        return None
    number, spelled = _number(value.get("value")), value.get("hex")
    if number is None:
        faults.note(f"{path}.value", f"is not a finite number: {_short(value.get('value'))}")
        return None
    try:
        same = isinstance(spelled, str) and float.fromhex(spelled) == number
    except (ValueError, OverflowError):
        same = False
    if not same:
        faults.note(f"{path}.hex", f"is not the same number as {number!r}: {_short(spelled)}")
    return number


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and abs(value) > LARGEST_WHOLE:
        return None
    return float(value) if math.isfinite(value) else None


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= LARGEST_WHOLE:
        return None
    return value


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) <= LONGEST else None


def digest(value: object) -> Digest | None:
    """Read a digest; None for what is none."""
    try:
        return Digest.parse(value) if isinstance(value, str) else None
    except InvalidDigest:
        return None


def _time(value: object) -> datetime | None:
    # strptime also takes other alphabets' digits, and spaces
    if not isinstance(value, str) or not re.fullmatch(r"[0-9TZ:-]{20}", value):
        return None
    try:
        return datetime.strptime(value, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


_SCALARS: Mapping[Any, Any] = {
    str: _string,
    int: _whole,
    float: _number,
    bool: lambda value: value if isinstance(value, bool) else None,
    Digest: digest,
    datetime: _time,
}
_KNOWN: dict[type, Mapping[str, object]] = {}
_NAMES: Mapping[Any, str] = {
    str: f"a string of up to {LONGEST} characters",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    Digest: "a digest of the form sha256:<64 hex digits>",
    datetime: "a time of the form 2026-11-23T02:00:00Z",
}


def _kinds(shape: type) -> Mapping[str, object]:
    found = _KNOWN.get(shape)
    if found is None:
        found = _KNOWN[shape] = get_type_hints(shape, include_extras=True)
    return found


def _plain(kind: object) -> tuple[Any, bool]:
    """Take ``X | None`` for X, and tell whether it is an exact number."""
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is Annotated:
        return get_args(kind)[0], True
    return kind, False


def _is_required(each: Field[Any]) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def camel(name: str) -> str:
    """Return a field's name as in-toto spells names: ``lowerCamelCase``."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _name(key: str) -> str:
    return key if re.fullmatch(r"[\w./-]{1,80}", key) else _short(key)


def _short(value: object) -> str:
    """Show a stranger's value in one line of a message."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    said = ascii(value) if not isinstance(value, int) or abs(value) < LARGEST_WHOLE else "too large"
    return said if len(said) <= 60 else said[:57] + "..."
