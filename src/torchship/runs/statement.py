"""A record as the bytes that are published: an in-toto statement about the image that ran.

Source: in-toto Attestation Framework, Statement v1 (spec/v1/statement.md). The schema of the
predicate is published as docs/run-record.schema.json.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from torchship import canonical
from torchship.amounts import counted
from torchship.errors import RecordError
from torchship.project import seeds
from torchship.runs import typed
from torchship.runs.claims import average, observations, sample_deviation, tolerance
from torchship.runs.curve import kept
from torchship.runs.record import GREATEST, Claim, Record, Run

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:torchship:run-record:v1"
MEDIA_TYPE = "application/vnd.in-toto+json"

LARGEST = 32 << 20
"""Bytes: a record with longer curves than this is no record that we wrote."""

_MOST_RUNS = 1000
_MOST_CLAIMS = 1000
_AGREE = 1e-9  # relative: other versions of Python may round a sum once more


def encode(record: Record) -> bytes:
    """Encode the statement: canonical, so that a record has one digest.

    Its subjects are the image's manifest, and the index that it was found in, if any.
    """
    image = record.image
    digests = [image.manifest, *([image.index] if image.index else [])]
    return canonical.encode(
        {
            "_type": STATEMENT,
            "subject": [
                {"name": typed.text(image.name), "digest": {"sha256": digest.hex}}
                for digest in digests
            ],
            "predicateType": PREDICATE,
            "predicate": typed.to_json(record),
        }
    )


def parse(raw: bytes, where: str) -> Record:
    """Read a statement, trusting nothing in it; ``where`` names it in errors.

    Raises `RecordError` with the path to each fault. A record whose claims do not follow from
    its own runs, or that is about another image than it says, is faulty.
    """
    if len(raw) > LARGEST:
        raise RecordError(f"{where} has {len(raw)} bytes, more than a record can ({LARGEST})")
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordError(f"{where} is not JSON: {error}") from None
    except RecursionError:
        raise RecordError(f"{where} is nested too deeply") from None
    if not isinstance(document, dict) or document.get("_type") != STATEMENT:
        raise RecordError(
            f"{where} is not an in-toto statement of version 1",
            hint="name a record.json, or the directory that `torchship record` or `run` wrote",
        )
    if document.get("predicateType") != PREDICATE:
        raise RecordError(
            f"{where} is no run record of version 1: its predicateType is "
            f"{str(document.get('predicateType'))[:100]!a}",
            hint="a newer torchship may know it" if _is_later(document) else None,
        )
    faults = typed.Faults()
    found = typed.from_json(Record, document.get("predicate"), "predicate", faults)
    if found is not None:
        _check(found, document, faults)
    if found is None or faults.found:
        raise RecordError(_told(where, faults.found))
    return found


def _is_later(document: dict[str, object]) -> bool:
    return str(document.get("predicateType")).startswith("urn:torchship:run-record:")


def _told(where: str, faults: Sequence[str]) -> str:
    if len(faults) == 1:
        return f"{where}: {faults[0]}"
    return f"{where} has {len(faults)} faults:" + "".join(f"\n  {fault}" for fault in faults)


def _check(record: Record, document: dict[str, Any], faults: typed.Faults) -> None:
    _check_subject(record, document.get("subject"), faults)
    for key, count, most in (
        ("runs", len(record.runs), _MOST_RUNS),
        ("claims", len(record.claims), _MOST_CLAIMS),
    ):
        if count > most:
            faults.note(f"predicate.{key}", f"has {count} entries, more than {most}")
            return
    if not record.runs:
        faults.note("predicate.runs", "is empty")
    _check_program(record, faults)
    _check_runs(record, faults)
    names = [claim.name for claim in record.claims]
    for place, claim in enumerate(record.claims):
        path = f"predicate.claims[{place}]"
        if claim.name in names[:place]:
            faults.note(path, f"claims {claim.name!a} a second time")
        _check_claim(claim, record, path, faults)


def _check_subject(record: Record, subject: object, faults: typed.Faults) -> None:
    expected = {record.image.manifest.hex}
    if record.image.index is not None:
        expected.add(record.image.index.hex)
    try:
        found = {entry["digest"]["sha256"] for entry in subject}  # type: ignore[attr-defined]
    except (TypeError, KeyError, IndexError):
        faults.note("subject", "is not a list of names and sha256 digests")
        return
    if found != expected:
        faults.note("subject", "is another image than predicate.image names")


def _check_program(record: Record, faults: typed.Faults) -> None:
    """Note what no program can be started with, and a seed that cannot be given to one."""
    if any("\0" in word for word in record.command):
        faults.note("predicate.command", "has a zero byte in a word")
    if any("\0" in text for pair in record.determinism.environment.items() for text in pair):
        faults.note("predicate.determinism.environment", "has a zero byte in a string")
    if record.seed is not None and seeds.fault(record.seed):
        faults.note("predicate.seed", f"is {record.seed[:60]!a}, which gives no program a seed")


def _check_runs(record: Record, faults: typed.Faults) -> None:
    known = set()
    for place, run in enumerate(record.runs):
        path = f"predicate.runs[{place}]"
        if run.seconds < 0:
            faults.note(f"{path}.seconds", "is negative")
        elif not _ends(run):
            faults.note(f"{path}.seconds", f"is {run.seconds!r}: no date can tell when it ended")
        if run.seed is not None and run.seed in known:
            faults.note(f"{path}.seed", f"is {run.seed}, as that of another run")
        known.add(run.seed)
        for name, value in run.metrics.items():
            if abs(value) >= GREATEST:
                faults.note(
                    f"{path}.metrics", f"has {name[:60]!a} of {value!r}: as good as infinite"
                )
        for name in (*run.metrics, *run.diverged):
            if not _is_name(name):
                faults.note(f"{path}.metrics", f"has the name {name[:60]!a}")
        if run.curve is not None and len(run.curve.steps) != kept(run.curve.count, run.curve.every):
            faults.note(f"{path}.curve.steps", "are not as many as `count` and `every` say")


def _ends(run: Run) -> bool:
    """Tell whether the time at which a run ended can be written."""
    try:
        run.started + timedelta(seconds=run.seconds)
    except OverflowError:
        return False
    return True


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 200 and name.isprintable()


def _check_claim(claim: Claim, record: Record, path: str, faults: typed.Faults) -> None:
    """Note where a claim says something else than the runs that it is made of."""
    if not _is_name(claim.name):
        faults.note(f"{path}.name", f"is {claim.name[:60]!a}")
        return
    if claim.examples is not None and claim.examples < 1:
        faults.note(f"{path}.examples", "is less than 1")
    values = [run.metrics.get(claim.name) for run in observations(record.runs)]
    present = [value for value in values if value is not None]
    if not present or len(present) != len(values):
        faults.note(path, f"claims {claim.name!a}, which not every run gave")
        return
    if max(map(abs, present)) >= GREATEST:
        return  # noted with its run
    mean, spread = average(present), sample_deviation(present)
    if claim.n != len(values):
        faults.note(
            f"{path}.n", f"is {claim.n}, and {counted(len(values), 'run')} gave {claim.name!a}"
        )
    if not _agree(claim.mean, mean):
        faults.note(f"{path}.mean", f"is {claim.mean!r}, and the runs give {mean!r}")
    if not _agree(claim.spread, spread):
        faults.note(f"{path}.spread", f"is {claim.spread!r}, and the runs give {spread!r}")
    if (claim.tolerance is None) != (claim.tolerance_from is None):
        faults.note(f"{path}.toleranceFrom", "does not go with the tolerance")
    elif claim.tolerance is not None and claim.tolerance < 0:
        faults.note(f"{path}.tolerance", "is negative")
    elif claim.tolerance_from == "runs":
        follows = None if spread is None else tolerance(spread, len(values))
        if not _agree(claim.tolerance, follows):
            faults.note(
                f"{path}.tolerance", f"is {claim.tolerance!r}, and from the runs follows {follows}"
            )


def _agree(stated: float | None, computed: float | None) -> bool:
    if stated is None or computed is None:
        return stated is computed
    return math.isclose(stated, computed, rel_tol=_AGREE, abs_tol=1e-300)
