"""Write docs/run-record.schema.json, from the types of a record.

python scripts/record_schema.py        # after a change in runs/record.py
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from torchship.digest import Digest
from torchship.runs import record, typed
from torchship.runs.statement import PREDICATE, STATEMENT

FILE = Path(__file__).parents[1] / "docs" / "run-record.schema.json"

_SCALARS: dict[Any, dict[str, object]] = {
    str: {"type": "string", "maxLength": typed.LONGEST},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Digest: {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
    datetime: {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z$"},
}
_EXACT = {
    "type": "object",
    "description": "A float as a decimal and as a hexadecimal number, which loses nothing.",
    "properties": {
        "value": {"type": "number"},
        "hex": {"type": "string", "pattern": r"^-?0x[01](\.[0-9a-f]+)?p[+-][0-9]+$"},
    },
    "required": ["value", "hex"],
}


def schema() -> dict[str, object]:
    """Return the JSON schema (draft 2020-12) of a statement whose predicate is a run record."""
    shapes: dict[str, object] = {}
    predicate = _shape(record.Record, shapes)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "torchship run record, version 1",
        "description": "An in-toto Statement v1 about a container image: what its runs were and "
        "gave. Fields that are not listed may be there, and mean nothing yet.",
        "type": "object",
        "properties": {
            "_type": {"const": STATEMENT},
            "predicateType": {"const": PREDICATE},
            "subject": {
                "description": "The image's manifest, and the index that it was found in, if any.",
                "type": "array",
                "minItems": 1,
                "maxItems": 2,
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "digest": {
                            "type": "object",
                            "properties": {
                                "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}
                            },
                            "required": ["sha256"],
                        },
                    },
                    "required": ["digest"],
                },
            },
            "predicate": predicate,
        },
        "required": ["_type", "subject", "predicateType", "predicate"],
        "$defs": {name: shapes[name] for name in sorted(shapes)},
    }


def _shape(kind: Any, shapes: dict[str, object]) -> dict[str, object]:  # noqa: ANN401 (a type)
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _EXACT
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "maxItems": typed.MOST, "items": _shape(arguments[0], shapes)}
    if origin is Mapping:
        inner = _shape(arguments[1], shapes)
        return {"type": "object", "maxProperties": typed.MOST, "additionalProperties": inner}
    if kind not in _SCALARS and is_dataclass(kind):
        if kind.__name__ not in shapes:
            shapes[kind.__name__] = {}
            shapes[kind.__name__] = _object(kind, shapes)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    return _SCALARS[kind]


def _object(kind: Any, shapes: dict[str, object]) -> dict[str, object]:  # noqa: ANN401
    hints = get_type_hints(kind, include_extras=True)
    required = [
        each for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING
    ]
    return {
        "description": " ".join((kind.__doc__ or "").replace("``", "`").split()),
        "type": "object",
        "properties": {
            typed.camel(each.name): _shape(hints[each.name], shapes) for each in fields(kind)
        },
        "required": [typed.camel(each.name) for each in required],
    }


def text() -> str:
    """Return the file's content."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
