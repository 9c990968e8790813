"""What a report says in words, and in tables: its banner, the runs, the commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torchship.amounts import counted, listed
from torchship.errors import InvalidReference
from torchship.oci.reference import Reference, names_registry
from torchship.project.seeds import fault, seeded
from torchship.runs.judgement import Level
from torchship.runs.legible import cut, legible, sentence
from torchship.runs.profile import NAMES
from torchship.runs.record import Record, Run
from torchship.runs.verdict import Verdict, run_differences

NO_TEST = (
    "A record says what these runs gave on one machine. Nothing was compared: whether other "
    "machines give the same is seen when somebody reproduces it.",
    "It does not show that the method, the data or the conclusions drawn from them are right.",
)

MOST_ROWS = 60
MOST_COLUMNS = 6
_MOST_REASONS = 6
_LONGEST = 1000

_SIGNS = {
    Level.BIT_IDENTICAL: ("=", "good"),
    Level.WITHIN_TOLERANCE: ("≈", "good"),
    Level.NOT_REPRODUCED: ("≠", "bad"),
    Level.INCONCLUSIVE: ("?", "open"),
    Level.COULD_NOT_RUN: ("!", "bad"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """The page's first words. ``tone`` colours them: good, bad, open or plain."""

    word: str
    sign: str
    tone: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run in the table of all. ``same``: as the author's of its seed, bit for bit."""

    side: str
    run: Run
    metrics: tuple[float | None, ...]
    same: bool | None = None
    differs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTable:
    """Runs, by side; ``names`` are the metrics' columns. ``more`` runs are left out."""

    names: tuple[str, ...]
    rows: tuple[RunRow, ...]
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Something to type, and what comes of it."""

    about: str
    line: str


def banner(author: Record, verdict: Verdict | None) -> Banner:
    """Return the verdict with its reasons; of a single record, what it holds."""
    if verdict is not None:
        sign, tone = _SIGNS[verdict.level]
        more = len(verdict.reasons) - _MOST_REASONS
        names = tuple(f"{claim.name}: " for claim in author.claims)
        reasons = [
            reason if reason.startswith(names) else sentence(reason)
            for reason in verdict.reasons[:_MOST_REASONS]
        ]
        rest = [f"and {counted(more, 'more claim')}"] if more > 0 else []
        return Banner(
            word=verdict.wording,
            sign=sign,
            tone=tone,
            lines=(*(cut(reason, _LONGEST) for reason in reasons), *rest),
        )
    failed = [run for run in author.runs if run.status != 0]
    if failed:
        told = f"{len(failed)} of {counted(len(author.runs), 'run')} failed: exit status "
        return Banner(word="FAILED", sign="!", tone="bad", lines=(f"{told}{failed[0].status}",))
    return Banner(
        word=counted(len(author.runs), "run").upper(),
        sign="•",
        tone="plain",
        lines=tuple(_recorded(author)),
    )


def _recorded(record: Record) -> Iterator[str]:
    seeds = [str(run.seed) for run in record.runs if run.seed is not None]
    with_seeds = f" with {listed('seed', seeds)}" if seeds else ""
    yield cut(f"Recorded{with_seeds}; nothing was compared yet.", 300)
    repeat = record.determinism.repeat
    if repeat is not None:
        which = "The run" if repeat.seed is None else f"Seed {repeat.seed}"
        if repeat.identical:
            yield f"{which}, run again, gave the same bits: the program is deterministic here."
        else:
            differs = cut(", ".join(repeat.differs[:6]), 300)
            yield f"{which}, run again, gave other bits in {differs}."
    if record.claims and all(claim.tolerance is None for claim in record.claims):
        yield "One run sets no tolerance: a reproduction can be told to be the same bits, or not."


def machine(record: Record) -> str:
    """Return one line on where a record was made."""
    hardware, software = record.hardware, record.software
    parts = []
    if hardware is not None:
        parts += [f"{len(hardware.gpus)} × {hardware.gpus[0].name}"] if hardware.gpus else []
        parts += [hardware.cpu] if hardware.cpu else []
        parts += [counted(hardware.processors, "processor")] if hardware.processors else []
    threads = record.determinism.threads
    parts += [counted(threads, "thread")] if threads else []
    parts += [f"torch {software.torch}"] if software and software.torch else []
    return cut(", ".join(parts), 300) or "a machine that nobody looked at"


def run_rows(author: Record, here: Record | None) -> RunTable:
    """Return every run with its claimed metrics, those from here below the author's."""
    claimed = [claim.name for claim in author.claims]
    given = dict.fromkeys(name for run in author.runs for name in run.metrics)
    names = tuple((claimed or list(given))[:MOST_COLUMNS])
    theirs = {run.seed: run for run in author.runs}
    rows = [_row("author" if here else "", run, names) for run in author.runs]
    for run in here.runs if here else ():
        same = theirs.get(run.seed)
        rows.append(_row("here", run, names, same))
    first, second = _shares(len(author.runs), len(rows) - len(author.runs))
    kept = [*rows[: len(author.runs)][:first], *rows[len(author.runs) :][:second]]
    return RunTable(names=names, rows=tuple(kept), more=len(rows) - len(kept))


def _shares(one: int, other: int) -> tuple[int, int]:
    """Return how many rows each side gets: what one does not need is the other's."""
    second = min(other, max(MOST_ROWS // 2, MOST_ROWS - one))
    return MOST_ROWS - second, second


def _row(side: str, run: Run, names: Sequence[str], other: Run | None = None) -> RunRow:
    metrics = tuple(run.metrics.get(name) for name in names)
    if other is None or other.status != 0 or run.status != 0:
        return RunRow(side=side, run=run, metrics=metrics)
    differs = run_differences(other, run)
    return RunRow(side=side, run=run, metrics=metrics, same=not differs, differs=tuple(differs[:6]))


def commands(author: Record, here: Record | None) -> tuple[Command, ...]:
    """Return what ran, and what to type to have it all again."""
    return tuple(_commands(author, here))


def _commands(author: Record, here: Record | None) -> Iterator[Command]:
    run = author.runs[0]
    program, variables = _seeded(author, run)
    seeds = [str(each.seed) for each in author.runs[1:] if each.seed is not None]
    others = f", and {listed('seed', seeds)} in its place"
    settings = [f"{name}={value}" for name, value in variables.items()]
    about = "what ran in the container"
    if run.seed is not None:
        about += cut(f", with seed {run.seed}{others if seeds else ''}", 200)
    yield Command(about=about, line=_line(*settings, *program))
    if here is not None:
        line = _line("torchship", "compare", "author.json", "record.json")
        yield Command(about="this verdict again, from the two records", line=line)
    name = _reference(author.image.name)
    if name is None:
        return
    if not names_registry(author.image.name):
        # a name that only the author's store knows: no registry has it yet
        line = _line("torchship", "publish", f"HOST/YOU/{name.repository.rpartition('/')[2]}:TAG")
        yield Command(about="publish it with its record, for anyone to reproduce", line=line)
        return
    line = _line("torchship", "reproduce", author.image.name)
    yield Command(about="reproduce it, and get a verdict", line=line)
    image = f"{name.registry}/{name.repository}@{author.image.index or author.image.manifest}"
    given = [word for each in settings for word in ("-e", each)]
    line = _line("docker", "run", "--rm", *given, image, *program)
    yield Command(about="one run with plain Docker, of the very image", line=line)


def _reference(name: str) -> Reference | None:
    """Read an image's name; None for one that could be an option, or anything else, in a shell."""
    try:
        return Reference.parse(name)
    except InvalidReference:
        return None


def _seeded(record: Record, run: Run) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return a run's command, and its variables: the seed's, and those of the strict profile."""
    strict = record.determinism.profile == "strict"
    pinned = {
        name: value for name, value in record.determinism.environment.items() if name in NAMES
    }
    variables = pinned if strict else {}
    if record.seed is not None and fault(record.seed):  # a stranger's: it gives no seed
        return record.command, variables
    found = seeded(record.command, record.seed, run.seed)
    return found.command, {**variables, **found.environment}


def _line(*words: str) -> str:
    return cut(shlex.join(legible(word) for word in words), _LONGEST)
