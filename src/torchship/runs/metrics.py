"""A run's metrics: numbers of a JSON file of its output, or the last match on its stdout."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import msgspec

from torchship.errors import ManifestError, MetricsError
from torchship.oci.assemble import METRICS
from torchship.project.project import Metric

LARGEST = 1 << 20
"""A metrics file is a flat object of numbers: more bytes than this are something else."""

_FORM = 'the program is to write an object of numbers there, such as {"test_accuracy": 0.99}'


def collect(metrics: Iterable[Metric], *, output: Path, log: Path) -> Mapping[str, float]:
    """Find every declared metric, and every number of ``metrics.json`` besides.

    A metric that the run did not give is left out: whether that matters is the verdict's to
    say. Raises `MetricsError` where a file or a match is not what was declared.
    """
    found = dict(_numbers(output / "metrics.json"))
    for metric in metrics:
        if metric.pattern is not None:
            value = _matched(metric, log)
        else:
            file = output / (metric.file or "metrics.json")
            inside = file.resolve().is_relative_to(output.resolve())  # folders may be links too
            value = _numbers(file).get(metric.name) if inside else None
        if value is not None:
            found[metric.name] = value
    return dict(sorted(found.items()))


def declared(labels: Mapping[str, str]) -> tuple[Metric, ...]:
    """Read the metrics that an image's labels declare; raises `ManifestError`.

    The image may be a stranger's: what its label says is checked like everything else of it.
    """
    text = labels.get(METRICS)
    if text is None:
        return ()
    try:
        found = tuple(msgspec.json.decode(text, type=dict[str, Metric]).values())
        for metric in found:
            re.compile(metric.pattern or "")
    except (msgspec.MsgspecError, re.error, RecursionError) as error:
        raise ManifestError(f"the image's label {METRICS} declares no metrics: {error}") from None
    for metric in found:
        file = PurePosixPath(metric.file or "")
        if file.is_absolute() or ".." in file.parts or "\0" in str(file):
            raise ManifestError(f"the image's label {METRICS} names a file outside the output")
    return found


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
        name: float(value)
        for name, value in document.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 1e308
        and math.isfinite(value)
        and name.isprintable()  # it is shown on a terminal, and stands in the record
    }


def _matched(metric: Metric, log: Path) -> float | None:
    r"""Return the last match: programs print a metric once an epoch, the last one counts.

    One group gives the number, two give a fraction: ``Accuracy: (\d+)/(\d+)``. A loss that has
    become NaN or infinite is no metric: nothing can be compared with it.
    """
    pattern = re.compile(metric.pattern or "")
    last: tuple[str, ...] | None = None
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            for match in pattern.finditer(line):
                last = match.groups()
    if not last:
        return None
    try:
        numbers = [float(group) for group in last if group is not None]
        value = numbers[0] if len(numbers) == 1 else numbers[0] / numbers[1]
    except (ValueError, IndexError, ZeroDivisionError):
        raise MetricsError(
            f"metrics.{metric.name}: {metric.pattern!r} matched {last!r}, which is no number",
            hint="put one group around the number, or two around a fraction's parts",
        ) from None
    return value if math.isfinite(value) else None
