"""What is published of a folder of runs, from the command line, with one real registry."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from tests.integration.test_end_to_end import NATIVE, bare, machine, shared
from tests.integration.test_reproduce import reader, reference

from torchship.runs import publishing

__all__ = ["bare", "machine", "reader", "reference", "shared"]

pytestmark = [pytest.mark.network, pytest.mark.engine]

MAIN = """\
import json, os, time
print("under way", flush=True)
time.sleep(float(os.environ.get("SLEEP", "0")))
json.dump({"acc": 0.5}, open(os.environ["TORCHSHIP_OUTPUT"] + "/metrics.json", "w"))
"""


@pytest.fixture
def zero(bare) -> Path:
    """Give a project without any configuration: no seed, no declared metric."""
    (bare / "main.py").write_text(MAIN)
    return bare


def test_a_project_without_configuration(machine, zero, reader, reference):
    """It is recorded, published from runs/, reproduced, compared and drawn."""
    made = machine.torchship("record", *NATIVE, zero, "--runs", "2")
    assert made.status == 0, made.err
    folder = Path(made.out.strip()).parent
    assert f"report: {folder}/report.html" in made.err
    assert (machine.root / folder / "report.html").is_file()
    assert machine.torchship("compare", folder, folder).status in (0, 3)
    assert machine.torchship("report", folder).status == 0
    # another project's name is no name for it
    refused = machine.torchship("publish", reference)
    refused.fails("is about bare", reference, f"torchship publish {reference} {folder}", status=2)
    named = reference.replace("/mnist:", "/bare:")
    answer = machine.torchship("publish", named)
    assert answer.status == 0, answer.err
    assert "publishing the record of bare" in answer.err
    assert "2 runs, made at 20" in answer.err and f", from {folder}" in answer.err
    (machine.root / "runs").rename(machine.root / "authors")
    # a reader's record does not take the place of the author's
    judged = reader.torchship("reproduce", named, *NATIVE)
    assert judged.status == 0, judged.out + judged.err
    assert "report: runs/" in judged.err
    reader.torchship("publish", named).fails("there is no record in runs/", status=2)
    (mine,) = (reader.root / "runs").glob("*/author.json")
    verdict = reader.torchship("publish", named, mine.parent / "record.json")
    assert "publishing the reproduction of" in verdict.err
    assert "reproduced by this record: " in verdict.err


def test_faults_are_not_verdicts(machine, zero, reference):
    """Exit code 4 is for `compare` and `reproduce` alone."""
    (zero / "main.py").write_text("exit(3)")
    crashed = machine.torchship("record", *NATIVE, zero)
    crashed.fails("ended with exit status 3", status=1)
    machine.torchship("publish", reference).fails("holds no record: it failed", status=1)
    machine.torchship("publish", reference, "nowhere").fails("cannot be read", status=1)
    machine.torchship("report", "runs").fails("record.json cannot be read", status=1)
    assert machine.torchship("compare", "runs", "runs").status == 4
    (zero / "main.py").write_text("print(1)")
    lacking = machine.torchship("record", *NATIVE, zero, "-o", "x")
    lacking.fails("the run gave no metrics: x/run-1/output/metrics.json is not there", status=1)
    assert [path.name for path in (machine.root / "x").glob("[!.]*")] == ["run-1"]


def test_ctrl_c_ends_a_recording(machine, zero):
    """While it looks at the machine, as a container starts, and while the program runs."""
    (zero / "main.py").write_text(MAIN.replace('"0"', '"60"'))
    assert machine.build(zero)
    for seconds in (0.8, 1.1, 1.4, 1.7, 2.2, 3.0):
        process = machine.start("record", *NATIVE, zero, "-o", f"at-{seconds}")
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130, err
        assert err.endswith("interrupted\n")
        assert not list(machine.root.glob("at-*/record.json"))


def test_a_single_run_is_published_as_one(machine, zero, reference):
    """It is told that it sets no tolerance."""
    assert machine.torchship("run", *NATIVE, zero, "-o", "one").status == 0
    answer = machine.torchship("publish", reference, "one")
    assert answer.status == 0, answer.err
    assert "it is of one run, which gives no tolerance" in answer.err
    assert len(publishing.read(machine.root / "one").record.runs) == 1
    assert json.loads((machine.root / "one/record.json").read_bytes())
