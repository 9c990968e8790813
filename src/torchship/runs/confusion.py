"""What a classifier mistook for what: ``confusion.json`` of a run's output.

A program wrote it, and it may have come from elsewhere with its record: sizes are limited,
every number is checked against the others, and the bytes are those that the record names.
docs/report.md says what is in it, docs/confusion.schema.json the same as a schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from torchship.digest import Digest
from torchship.errors import MetricsError
from torchship.runs.record import Record, Run
from torchship.runs.run import OUTPUT, folder_of

FILE = "confusion.json"

MOST_LABELS = 100
MOST_MISREAD = 100
MOST_PIXELS = 128
"""Of a picture, across and down."""

LARGEST = 4 << 20
"""Bytes of the file: a hundred pictures of the largest size take 2.2 MB of base64."""

Label = Annotated[str, Meta(min_length=1, max_length=100)]
Count = Annotated[int, Meta(ge=0, le=10**15)]
Place = Annotated[int, Meta(ge=0, le=MOST_LABELS - 1)]
Side = Annotated[int, Meta(ge=1, le=MOST_PIXELS)]
Row = Annotated[tuple[Count, ...], Meta(min_length=2, max_length=MOST_LABELS)]


class Misread(msgspec.Struct, frozen=True, kw_only=True):
    """An example that was taken for something else.

    `index` is its place in the test set, `label` and `predicted` are places in `labels`,
    `confidence` is the probability that the program gave to `predicted`; `pixels` are `width`
    times `height` bytes from the top left, 0 black and 255 white.
    """

    index: Annotated[int, Meta(ge=0, le=10**15)]
    label: Place
    predicted: Place
    confidence: Annotated[float, Meta(ge=0, le=1)]
    width: Side
    height: Side
    pixels: Annotated[bytes, Meta(max_length=MOST_PIXELS**2)]


class Confusion(msgspec.Struct, frozen=True, kw_only=True):
    """How often each label was taken for each: `matrix` has a row for every true label.

    A row's columns are what was predicted, in the order of `labels`. `misread` are some of the
    examples that were taken for something else, the most confident first.
    """

    labels: Annotated[tuple[Label, ...], Meta(min_length=2, max_length=MOST_LABELS)]
    matrix: Annotated[tuple[Row, ...], Meta(min_length=2, max_length=MOST_LABELS)]
    misread: Annotated[tuple[Misread, ...], Meta(max_length=MOST_MISREAD)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The confusion of the first run that left one which can be shown, and where there are more.

    ``faults`` say why others, or all, cannot be. ``count`` is how many runs left one.
    """

    run: Run | None = None
    confusion: Confusion | None = None
    count: int
    faults: tuple[str, ...] = ()


def find(folder: Path, record: Record) -> Found | None:
    """Look for what the runs of a record left in its folder; None: none of them left any.

    A record without its outputs, as one that was sent alone, has nothing to be shown either.
    """
    left = list(_left(folder, record))
    faults: list[str] = []
    for run, file in left:
        try:
            shown = read(file, run.outputs[FILE], file.relative_to(folder).as_posix())
        except MetricsError as error:
            faults.append(error.message)
            continue
        return Found(run=run, confusion=shown, count=len(left), faults=tuple(faults))
    return Found(count=len(left), faults=tuple(faults)) if left else None


def _left(folder: Path, record: Record) -> Iterator[tuple[Run, Path]]:
    for place, run in enumerate(record.runs, start=1):
        file = folder_of(folder, run.seed, place) / OUTPUT / FILE
        if FILE in run.outputs and file.is_file() and not file.is_symlink():
            yield run, file


def read(file: Path, recorded: Digest, name: str) -> Confusion:
    """Read what a run left; raise `MetricsError` where that is none, or not what was recorded.

    ``name`` is what the file is called then: a report says nothing of where it was made.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except OSError as error:
        raise MetricsError(f"{name} cannot be read: {error.strerror}") from None
    if len(raw) > LARGEST:
        raise MetricsError(f"{name} is larger than a confusion can be ({LARGEST} bytes)")
    if Digest.of(raw) != recorded:
        raise MetricsError(f"{name} has changed since it was recorded")
    try:
        found = msgspec.json.decode(raw, type=Confusion)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MetricsError(f"{name} is not a confusion: {error}") from None
    fault = next(_faults(found), None)
    if fault is not None:
        raise MetricsError(f"{name} is not a confusion: {fault}")
    return found


def _faults(found: Confusion) -> Iterator[str]:
    """Yield what the numbers say against each other."""
    size = len(found.labels)
    if len(set(found.labels)) < size:
        yield "a label stands twice in `labels`"
    if len(found.matrix) != size:
        yield f"`matrix` has {len(found.matrix)} rows, and there are {size} labels"
    for place, row in enumerate(found.matrix):
        if len(row) != size:
            yield f"`matrix[{place}]` has {len(row)} columns, and there are {size} labels"
    for place, each in enumerate(found.misread):
        of = f"`misread[{place}]`"
        if max(each.label, each.predicted) >= size:
            yield f"{of} has a label {max(each.label, each.predicted)}, and there are {size}"
        if each.label == each.predicted:
            yield f"{of} was not misread: its `label` is what was `predicted`"
        if len(each.pixels) != each.width * each.height:
            yield (
                f"{of} has {len(each.pixels)} pixels, which are not {each.width} x {each.height}"
            )
