"""Commands on a project: init, lock, build, run."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchship.cli.common import (
    complain,
    directory,
    example,
    load,
    lock_file,
    open_store,
    parse_platforms,
    platforms,
)
from torchship.cli.registry import send
from torchship.errors import ImageNotFound, MetricsError, TorchshipError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchship.digest import Descriptor
    from torchship.oci.reference import Reference
    from torchship.oci.store import Store
    from torchship.platform import Platform
    from torchship.progress import Progress
    from torchship.project.project import Project
    from torchship.runs.run import RunDirectory

COULD_NOT_START = 125


@click.command(epilog=example("torchship init examples/mnist"))
@directory
def init(directory: Path) -> None:
    """Write the settings of [tool.torchship], with their defaults, into pyproject.toml."""
    from torchship.project import init as starter

    click.echo(starter.init(directory))


@click.command(epilog=example("torchship lock", "torchship lock --check"))
@directory
@click.option("--upgrade", is_flag=True, help="Take the newest versions that fit, not the pinned.")
@click.option("--check", is_flag=True, help="Change nothing; exit 1 and say why if stale.")
@platforms
@lock_file
def lock(
    directory: Path,
    upgrade: bool,
    check: bool,
    platforms: tuple[str, ...],
    lock_file: Path | None,
) -> None:
    """Pin every wheel, Debian package, data file and base image by sha256."""
    from torchship import pipeline
    from torchship.display import display
    from torchship.project import lock as lockfile
    from torchship.project import resolve

    project = load(directory)
    path = lock_file or project.root / lockfile.FILENAME
    if check:
        wanted = parse_platforms(platforms) or project.platforms
        changes = resolve.stale(project, lockfile.load(path), wanted)
        for change in changes:
            click.echo(change)
        if changes:
            click.echo(f"{path} is stale: run torchship lock {directory}", err=True)
            sys.exit(1)
        click.echo(f"{path} fits {directory}", err=True)
        return
    with display() as progress:
        found = pipeline.lock(
            project,
            path,
            store=open_store(),
            platforms=parse_platforms(platforms),
            upgrade=upgrade,
            progress=progress,
        )
    for entry in found.platforms:
        click.echo(
            f"{entry.platform}: {len(entry.wheels)} wheels, {len(entry.base.packages)} Debian "
            f"packages, {len(found.data)} data files",
            err=True,
        )
    click.echo(path)


@click.command(
    epilog=example(
        "torchship build examples/mnist -t me/mnist:v0.1",
        "torchship build --platform linux/amd64 --platform linux/arm64",
    )
)
@directory
@click.option("-t", "--tag", "names", multiple=True, metavar="REF", help="Name the image.")
@platforms
@lock_file
@click.option("--push", is_flag=True, help="Push what -t names to its registry.")
@click.option("--docker", is_flag=True, help="Write Docker schema 2 manifests, for old tools.")
def build(
    directory: Path,
    names: tuple[str, ...],
    platforms: tuple[str, ...],
    lock_file: Path | None,
    push: bool,
    docker: bool,
) -> None:
    """Build an OCI image of a project: no Docker, no root, the same bytes everywhere."""
    if push and not names:
        raise UsageError("--push needs a name to push to", hint="give one with -t HOST/NAME:TAG")
    from torchship.display import display
    from torchship.oci.reference import Reference

    project, store = load(directory), open_store()
    named = tuple(Reference.parse(name) for name in names or (project.name,))
    with display() as progress:
        # Docker's manifests take the names, and OCI's, which they are made of, never have them.
        kept = () if docker else named
        top = built(project, kept, parse_platforms(platforms), lock_file, store, progress)
        if docker:
            from torchship.oci.schema2 import as_docker

            top = as_docker(store, top)
            for reference in named:
                store.tag(reference, top)
        for name in names if push else ():
            send(store, top, name, progress)
    click.echo(top.digest)


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
    "--engine",
    type=click.Choice(["auto", "native"]),
    default="auto",
    show_default=True,
    help="What runs the image; native needs no container engine.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="The run directory; runs/TIME-DIGEST/ unless given.",
)
@click.option("-e", "--env", "environment", multiple=True, metavar="K=V", help="Set a variable.")
@click.option(
    "-v", "--volume", "mounts", multiple=True, metavar="SRC:DST[:ro]", help="Mount a host path."
)
@click.option("-i", "--interactive", is_flag=True, help="Keep standard input open.")
@click.option("-t", "--tty", is_flag=True, help="Give the program a terminal.")
@click.option("--network", is_flag=True, help="Let the program reach the network.")
@click.option(
    "--cpus",
    metavar="N",
    type=click.FloatRange(min=0, min_open=True),
    help="Use at most N cores.",
)
@click.option("--memory", metavar="BYTES", help="Use at most this much memory, e.g. 4G.")
@click.option("--platform", metavar="OS/ARCH", help="Run this platform of an index.")
@lock_file
def run(
    target: str,
    command: tuple[str, ...],
    engine: str,
    output: Path | None,
    environment: tuple[str, ...],
    mounts: tuple[str, ...],
    interactive: bool,
    tty: bool,
    network: bool,
    cpus: float | None,
    memory: str | None,
    platform: str | None,
    lock_file: Path | None,
) -> None:
    """Run a project directory (locked and built first) or an image.

    TARGET is a directory or an image reference; the program's exit status is returned.
    """
    from torchship import pipeline
    from torchship.display import display
    from torchship.engines.choose import choose
    from torchship.engines.request import Mount, Request
    from torchship.oci.image import read_image
    from torchship.platform import Platform

    if tty and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the input device is not a terminal", hint="leave out -t")
    parsed_mounts = tuple(Mount.parse(text) for text in mounts)
    variables = dict(_variable(text) for text in environment)
    limit = _bytes(memory) if memory else None
    wanted = Platform.parse(platform) if platform else Platform.host()
    store = open_store()
    try:
        chosen = choose(engine, store)
        with display() as progress:
            top, name = _target(target, wanted, lock_file, store, progress)
        image = read_image(store, top, wanted)
        directory = _run_directory(output, image.descriptor)
        request = Request(
            image=image,
            command=command,
            environment=variables,
            mounts=parsed_mounts,
            output=directory.output,
            network=network,
            interactive=interactive,
            tty=tty,
            processors=cpus,
            memory=limit,
            log=directory.log,
        )
        outcome = pipeline.run(request, chosen, image=image, name=name, directory=directory)
    except (UsageError, MetricsError):
        raise
    except TorchshipError as error:
        complain(error)
        sys.exit(COULD_NOT_START)
    except OSError as error:
        complain(TorchshipError(f"cannot use {error.filename}: {error.strerror or error}"))
        sys.exit(COULD_NOT_START)
    for metric, value in outcome.metrics.items():
        click.echo(f"{metric}: {value:g}", err=True)
    click.echo(f"run directory: {directory.path}", err=True)
    sys.exit(outcome.status)


def built(
    project: Project,
    names: Sequence[Reference],
    platforms: Sequence[Platform],
    lock_file: Path | None,
    store: Store,
    progress: Progress,
) -> Descriptor:
    """Lock where needed, build, name, and tell what came of it."""
    from torchship import pipeline
    from torchship.display import size
    from torchship.oci.describe import describe
    from torchship.project import lock as lockfile

    began = time.monotonic()
    path = lock_file or project.root / lockfile.FILENAME
    wanted = tuple(platforms) or project.platforms
    pins = pipeline.locked(project, path, store=store, platforms=wanted, progress=progress)
    top = pipeline.build(
        project, pins, store=store, platforms=wanted, names=names, progress=progress
    )
    for found in describe(store, top):
        progress.say(
            f"{found.image.platform}: {len(found.layers)} layers, {size(found.size)}, "
            f"{time.monotonic() - began:.1f} s"
        )
    return top


def _target(
    target: str,
    platform: Platform,
    lock_file: Path | None,
    store: Store,
    progress: Progress,
) -> tuple[Descriptor, str]:
    """Return the image that TARGET stands for, building it if it is a directory; and its name."""
    from torchship.oci.reference import Reference

    folder = Path(target)
    if folder.is_dir():
        project = load(folder)
        name = Reference.parse(project.name)
        top = built(project, (name,), (platform,), lock_file, store, progress)
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
        # imported here: a run of what is in the store speaks to no registry
        from torchship.oci.pull import pull

        reference = Reference.parse(target)
        progress.say(f"{target} is not in the store: pulling it from {reference.registry}")
    pulled = pull(reference, store, platform=platform, progress=progress)
    return pulled.descriptor, target


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


def _bytes(text: str) -> int:
    """Read Docker's form of an amount of memory: powers of 1024, ``512M``, ``4g``."""
    digits = text.rstrip("bBkKmMgGtTiI")
    unit = text[len(digits) :].upper().replace("IB", "").removesuffix("B")
    try:
        amount = int(float(digits) * _FACTORS[unit])
    except (ValueError, OverflowError, KeyError):
        amount = 0
    if amount <= 0:
        raise UsageError(f"{text!r} is not an amount of memory", hint="write it as 512M or 4G")
    return amount
