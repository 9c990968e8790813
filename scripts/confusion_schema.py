"""Write docs/confusion.schema.json, from the types of a confusion.

python scripts/confusion_schema.py     # after a change in runs/confusion.py
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from torchship.runs.confusion import Confusion

FILE = Path(__file__).parents[1] / "docs" / "confusion.schema.json"


def schema() -> dict[str, object]:
    """Return the JSON schema (draft 2020-12) of ``confusion.json``."""
    (_,), shapes = msgspec.json.schema_components([Confusion], ref_template="#/$defs/{name}")
    for shape in shapes.values():
        shape["description"] = " ".join(shape["description"].split())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **shapes.pop("Confusion"),
        "title": "torchship confusion.json",
        "$defs": shapes,
    }


def text() -> str:
    """Return the file's content."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
