"""Running: a project, locked and built first, or an image."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchship.cli.common import (
    choice,
    complain,
    cpus,
    engine,
    example,
    gpus,
    load,
    lock_file,
    memory,
    open_store,
    run_directory,
    unusable,
    variant,
)
from torchship.cli.project import built
from torchship.errors import ImageNotFound, MetricsError, TorchshipError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torchship.digest import Descriptor
    from torchship.engines.gpu import Decision, Gpus
    from torchship.engines.request import Engine
    from torchship.oci.image import Image
    from torchship.oci.store import Store
    from torchship.oci.variant import Choice
    from torchship.pipeline import Outcome
    from torchship.platform import Platform
    from torchship.progress import Progress
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
@engine
@gpus
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
@click.option("--network", is_flag=True, help="Let the program reach the network.")
@cpus
@memory
@click.option("--platform", metavar="OS/ARCH", help="Run this platform of an index.")
@variant
@lock_file
def run(
    target: str,
    command: tuple[str, ...],
    engine: str,
    gpus: str,
    output: Path | None,
    environment: tuple[str, ...],
    mounts: tuple[str, ...],
    interactive: bool,
    tty: bool,
    network: bool,
    cpus: float | None,
    memory: str | None,
    platform: str | None,
    variant: str | None,
    lock_file: Path | None,
) -> None:
    """Run a project directory (locked and built first) or an image.

    TARGET is a directory or an image reference; the program's exit status is returned. What
    follows -- is run instead of the image's own command: options before it are torchship's.
    """
    from torchship import pipeline
    from torchship.display import display
    from torchship.engines.request import Mount, Request

    if tty and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the input device is not a terminal", hint="leave out -t")
    parsed_mounts = tuple(Mount.parse(text) for text in mounts)
    variables = dict(_variable(text) for text in environment)
    limit = parse_memory(memory)
    options = Options.parse(
        engine, gpus, platform, variant, lock_file, variables=variables, command=command
    )
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
            network=network,
            interactive=interactive,
            tty=tty,
            processors=cpus,
            memory=limit,
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
    except (UsageError, MetricsError):
        raise
    except TorchshipError as error:
        complain(error)
        sys.exit(COULD_NOT_START)
    except OSError as error:
        complain(unusable(error))
        sys.exit(COULD_NOT_START)
    _tell(outcome)
    click.echo(f"run directory: {directory.path}", err=True)
    sys.exit(outcome.status)


def _tell(outcome: Outcome) -> None:
    """Tell what a run measured, and how it ended where that was not its own doing."""
    for metric, value in outcome.metrics.items():
        click.echo(f"{metric}: {value:g}", err=True)
    for metric in outcome.diverged:
        click.echo(f"{metric}: not a number, or infinite: nothing compares with that", err=True)
    # As shells have it, 128 + N is the end by signal N; these two say it by themselves.
    number = outcome.status - 128
    if number > 0 and number not in (signal.SIGINT, signal.SIGPIPE):
        with suppress(ValueError):
            name = signal.Signals(number).name
            why = " (out of memory?)" if number == signal.SIGKILL else ""
            click.echo(f"the program was ended by {name}{why}", err=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What chooses how an image is run, as the user gave it, checked."""

    engine: str
    gpus: Gpus
    platform: Platform
    variant: str | None
    lock_file: Path | None
    variables: Mapping[str, str]
    command: tuple[str, ...] = ()

    @classmethod
    def parse(
        cls,
        engine: str,
        gpus: str,
        platform: str | None,
        variant: str | None,
        lock_file: Path | None,
        *,
        variables: Mapping[str, str],
        command: tuple[str, ...] = (),
    ) -> Options:
        """Read the options' texts; raise `UsageError`."""
        from torchship.engines.gpu import Gpus
        from torchship.platform import Platform

        return cls(
            engine=engine,
            gpus=Gpus.parse(gpus),
            platform=Platform.parse(platform) if platform else Platform.host(),
            variant=variant,
            lock_file=lock_file,
            variables=variables,
            command=command,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """An image that can be run at once. ``top`` is what its name stands for, maybe an index."""

    store: Store
    engine: Engine
    image: Image
    top: Descriptor
    name: str
    gpus: Gpus


def prepare(target: str, options: Options, progress: Progress) -> Ready:
    """Build or find or pull what TARGET stands for, and bring it to the engine that will run it."""
    from torchship import pipeline
    from torchship.engines.choose import check_platform, choose
    from torchship.oci import cuda

    store = open_store()
    chosen = choose(options.engine, store, progress=progress)
    check_platform(chosen, options.platform)
    suiting = choice(options.variant, gpus=options.gpus, engine=chosen.name)
    decided = partial(_decided, wish=options.gpus, engine=chosen.name, variables=options.variables)
    top, name = _target(target, options, suiting, decided, store, progress)
    taken = options.variant or _variant(store, top, options.platform, suiting)
    image = pipeline.ready(store, top, options.platform, variant=taken, progress=progress)
    decision = decided(cuda.of_image(image))
    if decision.said:
        progress.say(decision.said)
    chosen.prepare(image, progress=progress)
    store.release()  # the engine keeps what it needs: `prune` need not wait for a training's end
    return Ready(store=store, engine=chosen, image=image, top=top, name=name, gpus=decision.gpus)


def _target(
    target: str,
    options: Options,
    suiting: Choice,
    decided: Callable[[str | None], Decision],
    store: Store,
    progress: Progress,
) -> tuple[Descriptor, str]:
    """Return the image that TARGET stands for, building it if it is a directory; and its name."""
    from torchship.oci import cuda
    from torchship.oci.reference import HUB, OFFICIAL, Reference

    folder = Path(target)
    if folder.is_dir():
        project = load(folder, command=options.command)
        name = Reference.parse(project.name)
        one = suiting(project.torch) if len(project.torch) > 1 else None
        top = built(
            project,
            (name,),
            (options.platform,),
            options.lock_file,
            store,
            progress,
            variant=one,
            approve=lambda entry: decided(cuda.of_wheels(pin.filename for pin in entry.wheels)),
        )
        return top, project.name
    if target.startswith((".", "/", "~")):
        raise UsageError(f"there is no directory {target}", hint="name one that holds main.py")
    try:
        return store.find(target), target
    except ImageNotFound:
        if folder.parent.name and folder.parent.is_dir():
            raise UsageError(
                f"there is neither a directory {target} nor an image of that name in the store",
                hint=f"look into {folder.parent}/; an image is pulled by its full reference, "
                "as in docker.io/me/mnist:v0.1",
            ) from None
        if "/" not in target:
            # Most likely a mistyped directory: not to be answered with a stranger's image.
            raise UsageError(
                f"there is neither a directory {target} here nor an image of that name in the "
                "store",
                hint=f"name a directory, or an image by its full reference: {HUB}/{OFFICIAL}"
                f"{target}",
            ) from None
        # imported here: a run of what is in the store speaks to no registry
        from torchship.oci.pull import pull

        reference = Reference.parse(target)
        progress.say(f"{target} is not in the store: pulling it from {reference.registry}")
    pulled = pull(
        reference,
        store,
        platform=options.platform,
        choice=suiting,
        approve=lambda image: decided(cuda.of_image(image)),
        progress=progress,
    )
    return pulled.descriptor, target


def _variant(store: Store, top: Descriptor, platform: Platform, suiting: Choice) -> str:
    """Return which of an image's variants to run; empty where it has none."""
    from torchship.oci.image import manifests
    from torchship.oci.variant import offered

    names = offered(manifests(store, top), platform)
    return suiting(names) if names else ""


def _decided(
    version: str | None, *, wish: Gpus, engine: str, variables: Mapping[str, str]
) -> Decision:
    """Decide which GPUs a program gets, by the CUDA that its image has; refuse what cannot be."""
    from torchship.engines.gpu import decide
    from torchship.engines.nvidia import UNCHECKED, survey

    machine = survey()
    if variables.get(UNCHECKED):
        machine = replace(machine, driver=None)
    return decide(wish, version, engine, machine)


def _run_directory(output: Path | None, image: Descriptor) -> RunDirectory:
    from torchship.runs.run import PARENT, RunDirectory

    if output is not None:
        return RunDirectory.at(output)
    return RunDirectory.create(Path(PARENT), image.digest, datetime.now(UTC))


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(
            f"-e {text!r} is not of the form NAME=VALUE",
            hint=f'to pass on a variable of your own: -e {name or "NAME"}="${name or "NAME"}"',
        )
    return name, value


_FACTORS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_memory(text: str | None) -> int | None:
    """Read Docker's form of an amount of memory: powers of 1024, ``512M``, ``4g``."""
    if not text:
        return None
    digits = text.rstrip("bBkKmMgGtTiI")
    unit = text[len(digits) :].upper().replace("IB", "").removesuffix("B")
    try:
        amount = int(float(digits) * _FACTORS[unit])
    except (ValueError, OverflowError, KeyError):
        amount = 0
    if amount <= 0:
        raise UsageError(f"{text!r} is not an amount of memory", hint="write it as 512M or 4G")
    return amount
