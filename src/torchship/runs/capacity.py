"""What a record can hold: it is made to fit before it is written, or said not to.

Strangers' records have limits as to size and entries, and ours are strangers' to their readers: a
record that nobody can read must never be written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torchship import canonical
from torchship.amounts import counted, size
from torchship.errors import RecordError
from torchship.runs import curve, typed
from torchship.runs.record import Curve, Record
from torchship.runs.statement import LARGEST, encode, parse

_NONE = "no record can be made"
_WHERE = "the record of these runs"
_HINT = (
    "let the program write fewer files to /output, or declare the metrics that count in "
    "[tool.torchship.metrics]"
)


def fitted(record: Record) -> Record:
    """Return a record that can be read once it is written: with thinner curves, if need be.

    Raises `RecordError` where that does not help: it names more files than a record can, say.
    """
    raw = encode(record)
    while len(raw) > LARGEST:
        thinner = _with_curves(record, curve.thinned)
        if thinner == record:
            raise RecordError(f"{_NONE}: {_WHERE} would have {_too_large(len(raw))}", hint=_HINT)
        record, raw = thinner, encode(thinner)
    _read_back(raw)
    return record


def check(first: Record, runs: int) -> None:
    """Raise `RecordError` where so many runs, all like that of ``first``, fit no record.

    To be told after the first one, before hours are spent on the others.
    """
    thin = _with_curves(first, curve.thinnest)
    raw = encode(thin)
    _read_back(raw)
    one = len(canonical.encode(typed.to_json(thin.runs[0])))
    together = len(raw) + (runs - 1) * one
    if together > LARGEST:
        raise RecordError(
            f"{_NONE}: that of {counted(runs, 'run')} like the first would have "
            f"{_too_large(together)}",
            hint=f"{_HINT}; or make fewer runs with --runs",
        )


def _with_curves(record: Record, change: Callable[[Curve], Curve]) -> Record:
    runs = tuple(
        run if run.curve is None else replace(run, curve=change(run.curve)) for run in record.runs
    )
    return replace(record, runs=runs)


def _read_back(raw: bytes) -> None:
    try:
        parse(raw, _WHERE)
    except RecordError as error:
        raise RecordError(f"{_NONE}: {error.message}", hint=_HINT) from None


def _too_large(found: int) -> str:
    return f"{size(found)}, more than one can ({size(LARGEST)})"
