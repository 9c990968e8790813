"""Running: a project, locked and built first, or an image."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from torchship.cli.common import complain, example, run_directory, unusable
from torchship.cli.target import Options, prepare, run_options
from torchship.display import clean
from torchship.errors import TorchshipError, UsageError

if TYPE_CHECKING:
    from torchship.digest import Descriptor
    from torchship.pipeline import Outcome
    from torchship.runs.run import RunDirectory

COULD_NOT_START = 125


@click.command(
    epilog=example(
        "torchship run examples/mnist",
        "torchship run examples/mnist -- python main.py --epochs 1",
        "torchship run -it mnist:latest -- bash",
    )
)
@click.argument("target")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "-o",
    "--output",
    metavar="DIRECTORY",
    callback=run_directory,
    help="The run directory, a new or an empty one; runs/TIME-DIGEST/ unless given.",
)
@click.option("-e", "--env", "environment", multiple=True, metavar="K=V", help="Set a variable.")
@click.option(
    "-v", "--volume", "mounts", multiple=True, metavar="SRC:DST[:ro]", help="Mount a host path."
)
@click.option("-i", "--interactive", is_flag=True, help="Keep standard input open.")
@click.option("-t", "--tty", is_flag=True, help="Give the program a terminal.")
@run_options(network="Let the program reach the network.")
def run(
    target: str,
    command: tuple[str, ...],
    output: Path | None,
    environment: tuple[str, ...],
    mounts: tuple[str, ...],
    interactive: bool,
    tty: bool,
    options: Options,
) -> None:
    """Run a project directory (locked and built first) or an image.

    TARGET is a directory, or an image by name or by its digest's first digits (7 will do). The
    program's exit status is returned. What follows -- is run instead of the image's own command:
    options before it are torchship's.
    """
    from torchship import pipeline
    from torchship.display import display
    from torchship.engines.request import Mount, Request
    from torchship.runs import failure

    if tty and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the input device is not a terminal", hint="leave out -t")
    parsed_mounts = tuple(Mount.parse(text) for text in mounts)
    variables = dict(parse_variable(text) for text in environment)
    options = replace(options, command=command, variables=variables)
    try:
        with display() as progress:
            ready = prepare(target, options, progress)
        directory = _run_directory(output, ready.image.descriptor)
        request = Request(
            image=ready.image,
            command=command,
            environment=variables,
            mounts=parsed_mounts,
            output=directory.output,
            network=options.network,
            interactive=interactive,
            tty=tty,
            processors=options.processors,
            memory=options.memory,
            gpus=ready.gpus,
            log=directory.log,
        )
        outcome = pipeline.run(
            request,
            ready.engine,
            image=ready.image,
            name=ready.name,
            directory=directory,
            index=ready.top.digest,
        )
    except UsageError:
        raise
    except TorchshipError as error:
        complain(error)
        sys.exit(COULD_NOT_START)
    except OSError as error:
        complain(unusable(error))
        sys.exit(COULD_NOT_START)
    _tell(outcome)
    if outcome.status != 0 and (why := failure.hint(directory.log, network=options.network)):
        click.echo(clean(why), err=True)
    click.echo(f"run directory: {directory.path}", err=True)
    sys.exit(outcome.status)


def _tell(outcome: Outcome) -> None:
    """Tell what a run measured, and how it ended where that was not its own doing."""
    for metric, value in outcome.metrics.items():
        click.echo(f"{clean(metric)}: {value:g}", err=True)
    for metric in outcome.diverged:
        told = f"{clean(metric)}: not a number, or infinite: nothing compares with that"
        click.echo(told, err=True)
    if outcome.unread is not None:
        hint = f"; {outcome.unread.hint}" if outcome.unread.hint else ""
        click.echo(clean(f"no metrics: {outcome.unread.message}{hint}"), err=True)
    if outcome.unrecorded is not None:
        complain(outcome.unrecorded)
    # As shells have it, 128 + N is the end by signal N; these two say it by themselves.
    number = outcome.status - 128
    if number > 0 and number not in (signal.SIGINT, signal.SIGPIPE):
        with suppress(ValueError):
            name = signal.Signals(number).name
            why = " (out of memory?)" if number == signal.SIGKILL else ""
            click.echo(f"the program was ended by {name}{why}", err=True)


def _run_directory(output: Path | None, image: Descriptor) -> RunDirectory:
    from torchship.runs.run import PARENT, RunDirectory

    if output is not None:
        return RunDirectory.at(output)
    return RunDirectory.create(Path(PARENT), image.digest, datetime.now(UTC))


def parse_variable(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``; raise `UsageError`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(
            f"-e {text!r} is not of the form NAME=VALUE",
            hint=f'to pass on a variable of your own: -e {name or "NAME"}="${name or "NAME"}"',
        )
    return name, value
