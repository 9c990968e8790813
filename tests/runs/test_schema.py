"""The published schema of records."""

import importlib.util
import json
from pathlib import Path

import jsonschema
from tests.runs.records import accuracies, record, run, whole

from torchship.runs import statement

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "run-record.schema.json"


def test_the_schema_is_that_of_the_types():
    """docs/run-record.schema.json is what scripts/record_schema.py makes of them."""
    spec = importlib.util.spec_from_file_location("schema", ROOT / "scripts" / "record_schema.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert SCHEMA.read_text() == script.text(), "run python scripts/record_schema.py"


def test_what_is_written_is_valid():
    """Every record passes the schema, and the schema can say no."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    for found in (whole(), accuracies(0.0, 1e-300, -0.5), record(run(None), claims=())):
        validator.validate(json.loads(statement.encode(found)))
    document = json.loads(statement.encode(whole()))
    document["predicate"]["runs"][0]["metrics"]["test_accuracy"] = 0.99
    assert not validator.is_valid(document)
    del document["predicate"]["runs"]
    assert not validator.is_valid(document)
