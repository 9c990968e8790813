"""A confusion matrix laid out for a page: which cells are shaded, and what is said of them.

Few labels make a table with its numbers. Of many, a picture of cells shows where the mistakes
are, and the most frequent ones are listed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torchship.runs.confusion import Confusion, Misread
from torchship.runs.report.picture import data_uri

MOST_COLUMNS = 20
"""Labels that a table with numbers has room for."""

SHORT = 3
"""Letters of a label that is no longer than the numbers below it."""

MOST_PAIRS = 8
LEVELS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """How often one label was taken for another, or for itself where it is ``right``.

    ``level`` shades a mistake: from 1 to `LEVELS`, which is the most frequent one; 0 none.
    ``across`` is its column, from 0.
    """

    count: int
    level: int
    right: bool
    across: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a true label was taken for. ``share`` of it was right; None: there was nothing of it."""

    label: str
    cells: tuple[Cell, ...]
    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A mistake, and how often it was made."""

    label: str
    predicted: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A misread example. ``address`` is a data URI that holds it; ``confidence`` from 0 to 1."""

    index: int
    label: str
    predicted: str
    confidence: float
    width: int
    height: int
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A confusion as a page shows it. ``pairs`` are the most frequent mistakes."""

    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    right: int
    total: int
    pairs: tuple[Pair, ...]
    pictures: tuple[Picture, ...]

    @property
    def wrong(self) -> int:
        """How many examples were misread."""
        return self.total - self.right

    @property
    def has_words(self) -> bool:
        """Tell whether labels are too long to stand side by side above their columns."""
        return any(len(label) > SHORT for label in self.labels)

    @property
    def is_table(self) -> bool:
        """Tell whether there is room for its numbers."""
        return len(self.labels) <= MOST_COLUMNS


def laid_out(found: Confusion) -> Matrix:
    """Lay out a confusion whose numbers agree."""
    mistakes = [
        (count, place, across)
        for place, row in enumerate(found.matrix)
        for across, count in enumerate(row)
        if count and place != across
    ]
    worst = max((count for count, _, _ in mistakes), default=0)
    frequent = sorted(mistakes, key=lambda each: (-each[0], each[1], each[2]))[:MOST_PAIRS]
    return Matrix(
        labels=found.labels,
        rows=tuple(_row(found, place, worst) for place in range(len(found.labels))),
        right=sum(row[place] for place, row in enumerate(found.matrix)),
        total=sum(map(sum, found.matrix)),
        pairs=tuple(
            Pair(label=found.labels[place], predicted=found.labels[across], count=count)
            for count, place, across in frequent
        ),
        pictures=tuple(_picture(found, each) for each in found.misread),
    )


def _row(found: Confusion, place: int, worst: int) -> Row:
    counts = found.matrix[place]
    total = sum(counts)
    cells = (
        Cell(
            count=count,
            level=0 if across == place else _level(count, worst),
            right=across == place,
            across=across,
        )
        for across, count in enumerate(counts)
    )
    return Row(
        label=found.labels[place],
        cells=tuple(cells),
        share=counts[place] / total if total else None,
    )


def _level(count: int, worst: int) -> int:
    """Shade by the square root: that of a rare mistake is still seen beside a frequent one."""
    return math.ceil(LEVELS * math.sqrt(count / worst)) if count else 0


def _picture(found: Confusion, each: Misread) -> Picture:
    return Picture(
        index=each.index,
        label=found.labels[each.label],
        predicted=found.labels[each.predicted],
        confidence=each.confidence,
        width=each.width,
        height=each.height,
        address=data_uri(each.width, each.height, each.pixels),
    )
