"""``torchship record``: an image's runs, written down to be published with it."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from torchship.cli.common import example
from torchship.cli.common import run_directory as named_directory
from torchship.cli.target import Options, prepare, run_options
from torchship.display import clean
from torchship.errors import MetricsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchship.digest import Digest
    from torchship.runs.record import Record
    from torchship.runs.run import RecordDirectory

output = click.option(
    "-o",
    "--output",
    metavar="DIRECTORY",
    callback=named_directory,
    help="Where the runs and the record go; runs/TIME-DIGEST/ unless given.",
)


@click.command(
    epilog=example(
        "torchship record examples/mnist",
        "torchship record examples/mnist --runs 3 -- python main.py --epochs 1",
    )
)
@click.argument("target")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--runs",
    "count",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="How many runs: with seeds 1, 2, 3, ...",
)
@click.option("--seeds", metavar="A,B,...", help="These seeds instead.")
@click.option("--strict", is_flag=True, help="Pin threads and instruction sets: slower, steadier.")
@click.option(
    "--repeat/--no-repeat",
    default=True,
    show_default=True,
    help="Run the first seed once more, to learn whether it gives the same bits.",
)
@output
@run_options(network="Let the program reach the network; recorded.")
def record(
    target: str,
    command: tuple[str, ...],
    count: int,
    seeds: str | None,
    strict: bool,
    repeat: bool,
    output: Path | None,
    options: Options,
) -> None:
    """Run an image with several seeds and write down what it gave, to be published with it.

    TARGET is a directory or an image reference. How a seed reaches the program is `seed` in
    [tool.torchship]. The record's path is printed.
    """
    from torchship.cli.report import draw_beside
    from torchship.display import display
    from torchship.engines.request import Request
    from torchship.project.revision import revision
    from torchship.runs.execution import declared
    from torchship.runs.metrics import announced
    from torchship.runs.profile import strict as strictly
    from torchship.runs.recording import Plan, check, measured
    from torchship.runs.recording import record as recorded
    from torchship.runs.statement import encode

    chosen = parse_seeds(seeds)
    options = replace(options, command=command)
    with display() as progress:
        ready = prepare(target, options, progress)
        stated = declared(ready.image)
        if stated.seed is None:
            if chosen:
                raise UsageError(
                    "--seeds needs to know how a seed is given to the program",
                    hint='write seed = "--seed {seed}" into [tool.torchship]',
                )
            progress.say(
                "no `seed` in [tool.torchship]: the program runs as it is each time, and "
                "where it seeds itself, all runs are the same one; to give it one, write "
                'seed = "--seed {seed}", or "SEED={seed}" for a variable'
            )
        progress.say(announced(stated.metrics))
        folder = run_directory(output, ready.image.descriptor.digest)
        processors = int(options.processors) if options.processors else _processors()
        architecture = options.platform.architecture
        plan = Plan(
            request=Request(
                image=ready.image,
                command=command,
                environment=strictly(processors=processors, architecture=architecture)
                if strict
                else {},
                network=options.network,
                processors=options.processors,
                memory=options.memory,
                gpus=ready.gpus,
                stdout=2,
            ),
            seeds=planned(chosen, count, seeded=stated.seed is not None),
            profile="strict" if strict else "default",
            repeat=repeat,
            name=ready.name,
            index=ready.top.digest,
            revision=revision(Path(target)) if Path(target).is_dir() else None,
        )
        with _of_this_build(target):
            made = recorded(
                plan,
                ready.engine,
                declared=stated,
                directory=folder,
                progress=progress,
                first=measured,
            )
            check(made, stated, folder)
    folder.record.write_bytes(encode(made))
    show(made)
    draw_beside(folder.path)
    click.echo(folder.record)


@contextmanager
def _of_this_build(target: str) -> Iterator[None]:
    """Say of metrics that are missing that an image has the settings with which it was built."""
    try:
        yield
    except MetricsError as error:
        if Path(target).is_dir():  # which was built a moment ago
            raise
        built = "the image has the settings of its build: build again if pyproject.toml changed"
        hint = f"{error.hint}; {built}" if error.hint else built
        raise MetricsError(error.message, hint=hint) from None


def parse_seeds(text: str | None) -> tuple[int, ...]:
    """Read a list of different whole numbers; raise `UsageError`."""
    if text is None:
        return ()
    try:
        found = tuple(int(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or len(set(found)) != len(found) or any(abs(seed) >= 1 << 62 for seed in found):
        raise UsageError(f"--seeds {text!r} is not a list of different numbers such as 1,2,3")
    return found


def planned(chosen: tuple[int, ...], count: int, *, seeded: bool) -> tuple[int | None, ...]:
    """Return the seeds of so many runs, or the chosen ones; None for a run without one."""
    if chosen:
        return chosen
    return tuple(range(1, count + 1)) if seeded else (None,) * count


def _processors() -> int:
    import os

    return len(os.sched_getaffinity(0))


def run_directory(output: Path | None, image: Digest) -> RecordDirectory:
    """Return the directory of several runs: the one that the user named, or one of its own."""
    from torchship.runs.run import PARENT, RecordDirectory

    if output is not None:
        return RecordDirectory.at(output)
    return RecordDirectory.create(Path(PARENT), image, datetime.now(UTC))


def show(made: Record) -> None:
    """Tell what a record claims, and whether the program is deterministic here."""
    from torchship.amounts import counted
    from torchship.runs.wording import number

    for claim in made.claims:
        spread = "" if claim.spread is None else f", standard deviation {number(claim.spread)}"
        allowed = "none: one run" if claim.tolerance is None else number(claim.tolerance)
        told = f"{claim.name}: {number(claim.mean)} over {counted(claim.n, 'run')}{spread}"
        click.echo(clean(f"{told}; tolerance {allowed}"), err=True)
    repeat = made.determinism.repeat
    if repeat is not None:
        told = "same bits" if repeat.identical else f"other bits: {', '.join(repeat.differs[:6])}"
        click.echo(clean(f"the first seed run again: {told}"), err=True)
