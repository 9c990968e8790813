"""A run's metrics: numbers of a JSON file of its output, or the last match on its stdout."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgspec

from torchship.errors import ManifestError, MetricsError
from torchship.oci.assemble import METRICS
from torchship.project.project import Metric
from torchship.runs.allowance import UsedUp, allowance
from torchship.runs.legible import cut, legible
from torchship.runs.record import GREATEST

DEFAULT = "metrics.json"
"""The file of the output in which metrics are looked for."""

LONGEST_NAME = 200
"""Characters of a metric's name."""

LARGEST = 1 << 20
"""A metrics file is a flat object of numbers: more bytes than this are something else."""

SECONDS = 10.0
"""Processor time that all patterns of an image may take: an honest one needs milliseconds."""

_LONGEST_PATTERN = 1000  # characters
_SHOWN = 80  # characters of a pattern, or of what it matched, in what is told
_NAMED = 8  # metrics, where they are announced
_LONGEST_LINE = 1 << 16  # characters; what is longer is searched in pieces

_FORM = 'the program is to write an object of numbers there, such as {"test_accuracy": 0.99}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run measured. ``diverged`` came out as NaN or infinite: nothing compares with that.

    ``examples`` are the denominators of metrics that were printed as fractions.
    """

    values: Mapping[str, float]
    diverged: tuple[str, ...] = ()
    examples: Mapping[str, int] = field(default_factory=dict)


NOTHING = Measured(values={})
"""What a run measured whose metrics could not be read."""


def collect(metrics: Iterable[Metric], *, output: Path, log: Path) -> Measured:
    """Find every declared metric, and every number of ``metrics.json`` besides.

    A metric that the run did not give is left out: whether that matters is the verdict's to
    say. Raises `MetricsError` where a file or a match is not what was declared.
    """
    found = dict(_numbers(output / DEFAULT))
    examples: dict[str, int] = {}
    began = time.process_time()
    for metric in metrics:
        if metric.pattern is not None:
            value, total = _matched(metric, log, SECONDS - (time.process_time() - began))
            if total is not None:
                examples[metric.name] = total
        else:
            file = output / (metric.file or DEFAULT)
            inside = file.resolve().is_relative_to(output.resolve())  # folders may be links too
            value = _numbers(file).get(metric.name) if inside else None
        if value is not None:
            found[metric.name] = value
    return Measured(
        values={name: found[name] for name in sorted(found) if _is_finite(found[name])},
        diverged=tuple(name for name in sorted(found) if not _is_finite(found[name])),
        examples=examples,
    )


def announced(metrics: Sequence[Metric]) -> str:
    """Say in one line what a run will be measured by: names and patterns may be a stranger's."""
    if not metrics:
        return f"the image declares no metrics: the numbers of {DEFAULT} in /output are read"
    shown = [f"{metric.name} ({_where(metric)})" for metric in metrics[:_NAMED]]
    more = f" and {len(metrics) - _NAMED} more" if len(metrics) > _NAMED else ""
    return legible(f"metrics that the image declares: {', '.join(shown)}{more}")


def _where(metric: Metric) -> str:
    if metric.pattern is not None:
        return f"pattern {cut(metric.pattern, _SHOWN)}"
    return f"{metric.file or DEFAULT} in /output"


def declared(labels: Mapping[str, str]) -> tuple[Metric, ...]:
    """Read the metrics that an image's labels declare; raises `ManifestError`.

    The image may be a stranger's: what its label says is checked like everything else of it.
    """
    text = labels.get(METRICS)
    if text is None:
        return ()
    try:
        found = tuple(msgspec.json.decode(text, type=dict[str, Metric]).values())
        with allowance(SECONDS):
            for metric in found:
                _check_length(metric)
                re.compile(metric.pattern or "")
    except (msgspec.MsgspecError, re.error, RecursionError, OverflowError) as error:
        raise ManifestError(f"the image's label {METRICS} declares no metrics: {error}") from None
    except UsedUp:
        raise ManifestError(
            f"the image's label {METRICS} has patterns that take more than {SECONDS:.0f} s to read"
        ) from None
    for metric in found:
        if not 0 <= (metric.tolerance or 0) < math.inf or (metric.examples or 1) < 1:
            raise ManifestError(f"the image's label {METRICS} declares a faulty metric")
        file = PurePosixPath(metric.file or "")
        if file.is_absolute() or ".." in file.parts or "\0" in str(file):
            raise ManifestError(f"the image's label {METRICS} names a file outside the output")
    return found


def _check_length(metric: Metric) -> None:
    if len(metric.pattern or "") > _LONGEST_PATTERN:
        raise ManifestError(
            f"the image's label {METRICS} has a pattern of over {_LONGEST_PATTERN} characters"
        )


def _numbers(path: Path) -> Mapping[str, float]:
    # The program wrote this: it is read as untrusted input, and never through a link.
    if path.is_symlink() or not path.is_file():
        return {}
    if path.stat().st_size > LARGEST:
        raise MetricsError(
            f"{path} is larger than a metrics file can be ({LARGEST} bytes)", hint=_FORM
        )
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise MetricsError(f"{path} is not JSON: {error}", hint=_FORM) from None
    if not isinstance(document, dict):
        raise MetricsError(f"{path} is not a flat object of numbers", hint=_FORM)
    return {
        name: _float(value)
        for name, value in document.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and name.isprintable()  # it is shown on a terminal, and stands in the record
        and 0 < len(name) <= LONGEST_NAME
    }


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more digits than a float can count
        return math.inf


def _is_finite(value: float) -> bool:
    return abs(value) < GREATEST  # false for NaN


def _matched(metric: Metric, log: Path, seconds: float) -> tuple[float | None, int | None]:
    r"""Return the last match, and the denominator of one that is a fraction.

    Programs print a metric once an epoch, the last one counts. One group gives the number, two
    give a fraction: ``Accuracy: (\d+)/(\d+)``.
    """
    try:
        with allowance(max(seconds, 0.001)):
            last = _last(re.compile(metric.pattern or ""), log)
    except UsedUp:
        raise MetricsError(
            f"metrics.{metric.name}: searching {log} for {cut(metric.pattern or '', _SHOWN)} takes "
            f"more than {SECONDS:.0f} s",
            hint="write a pattern without repeats inside of repeats, or let the program write "
            "metrics.json",
        ) from None
    if not last:
        return None, None
    try:
        numbers = [float(group) for group in last if group is not None]
        if len(numbers) == 1:
            return numbers[0], None
        return numbers[0] / numbers[1], int(numbers[1]) if numbers[1].is_integer() else None
    except (ValueError, IndexError, ZeroDivisionError, OverflowError):
        matched = "/".join(cut(group, _SHOWN) for group in last if group is not None)
        raise MetricsError(
            f"metrics.{metric.name}: the pattern {metric.pattern} matched "
            f"{matched or 'nothing'}, which is no number",
            hint="put one group around a number such as 12345 or 0.99, or two around a fraction's "
            "parts",
        ) from None


def _last(pattern: re.Pattern[str], log: Path) -> tuple[str, ...] | None:
    found = None
    with log.open(encoding="utf-8", errors="replace") as lines:
        while line := lines.readline(_LONGEST_LINE):
            for match in pattern.finditer(line):
                found = match.groups()
    return found
