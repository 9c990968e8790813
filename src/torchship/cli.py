"""The command line: arguments, printing, exit codes, and nothing else.

stdout carries the answer, stderr the story. Exit codes: 0 done; 1 it could not be done (or
``lock --check`` found the lock stale); 2 the command line or a setting is wrong; 125
``run`` could not start the program, whose own exit status is given otherwise; 130 Ctrl-C.
"""

from __future__ import annotations

import errno
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchship import __version__
from torchship.errors import TorchshipError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchship.digest import Descriptor
    from torchship.oci.store import Store
    from torchship.platform import Platform
    from torchship.progress import Progress
    from torchship.project.project import Project
    from torchship.runs.run import RunDirectory

COULD_NOT_START = 125
INTERRUPTED = 130


class _Group(click.Group):
    """Lists commands in the order in which a newcomer meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(self.commands)


def _example(*lines: str) -> str:
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


@click.group(
    cls=_Group,
    epilog=_example("torchship run examples/mnist -- python main.py --epochs 1"),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="torchship %(version)s")
def torchship() -> None:
    """Ship a PyTorch experiment as a container image that anyone can re-run, and check."""


_directory = click.argument(
    "directory", default=".", type=click.Path(path_type=Path, file_okay=False)
)
_platforms = click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH",
    help="Build for this platform, e.g. linux/arm64; may be repeated.",
)
_lock_file = click.option(
    "--lock",
    "lock_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Use this lock instead of DIR/torchship.lock.",
)


@torchship.command(epilog=_example("torchship init examples/mnist"))
@_directory
def init(directory: Path) -> None:
    """Write the settings of [tool.torchship], with their defaults, into pyproject.toml."""
    from torchship.project import init as starter

    click.echo(starter.init(directory))


@torchship.command(epilog=_example("torchship lock", "torchship lock --check"))
@_directory
@click.option("--upgrade", is_flag=True, help="Take the newest versions that fit, not the pinned.")
@click.option("--check", is_flag=True, help="Change nothing; exit 1 and say why if stale.")
@_platforms
@_lock_file
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

    project = _load(directory)
    path = lock_file or project.root / lockfile.FILENAME
    if check:
        wanted = _parse_platforms(platforms) or project.platforms
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
            store=_store(),
            platforms=_parse_platforms(platforms),
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


@torchship.command(
    epilog=_example(
        "torchship build examples/mnist -t me/mnist:v0.1",
        "torchship build --platform linux/amd64 --platform linux/arm64",
    )
)
@_directory
@click.option("-t", "--tag", "names", multiple=True, metavar="REF", help="Name the image.")
@_platforms
@_lock_file
@click.option("--docker", is_flag=True, help="Write Docker schema 2 manifests, for old tools.")
def build(
    directory: Path,
    names: tuple[str, ...],
    platforms: tuple[str, ...],
    lock_file: Path | None,
    docker: bool,
) -> None:
    """Build an OCI image of a project: no Docker, no root, the same bytes everywhere."""
    from torchship.display import display

    project, store = _load(directory), _store()
    named = names or (project.name,)
    with display() as progress:
        top = _build(project, named, _parse_platforms(platforms), lock_file, store, progress)
        if docker:
            from torchship.oci.schema2 import as_docker

            top = as_docker(store, top)
            for name in named:
                store.tag(name, top)
    click.echo(top.digest)


@torchship.command(
    epilog=_example(
        "torchship run examples/mnist",
        "torchship run examples/mnist -- python main.py --epochs 1",
        "torchship run -it mnist:latest -- bash",
    )
)
@click.argument("target")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--engine",
    type=click.Choice(["auto", "docker", "podman", "native"]),
    default="auto",
    show_default=True,
    help="What runs the image; native needs no container engine.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="The run directory; runs/<UTC time>-<digest>/ unless given.",
)
@click.option("-e", "--env", "environment", multiple=True, metavar="K=V", help="Set a variable.")
@click.option(
    "-v", "--volume", "mounts", multiple=True, metavar="SRC:DST[:ro]", help="Mount a host path."
)
@click.option("-i", "--interactive", is_flag=True, help="Keep standard input open.")
@click.option("-t", "--tty", is_flag=True, help="Give the program a terminal.")
@click.option("--network", is_flag=True, help="Let the program reach the network.")
@click.option("--cpus", type=click.FloatRange(min=0, min_open=True), help="Use at most N cores.")
@click.option("--memory", metavar="BYTES", help="Use at most this much memory, e.g. 4G.")
@click.option("--platform", metavar="OS/ARCH", help="Run this platform of an index.")
@_lock_file
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
    store = _store()
    chosen = choose(engine, store)
    try:
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
    except UsageError:
        raise
    except TorchshipError as error:
        _complain(error)
        sys.exit(COULD_NOT_START)
    for metric, value in outcome.metrics.items():
        click.echo(f"{metric}: {value:g}", err=True)
    click.echo(f"run directory: {directory.path}", err=True)
    sys.exit(outcome.status)


@torchship.command(epilog=_example("torchship images", "torchship images --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def images(as_json: bool) -> None:
    """List the images in the store."""
    from torchship import render
    from torchship.display import size
    from torchship.oci.describe import describe

    store = _store()
    rows = []
    for named in store.images():
        found = describe(store, named.descriptor)
        platforms = ", ".join(str(each.image.platform) for each in found)
        total = sum(each.size for each in found)
        rows.append((named.reference.familiar, named.descriptor.digest, platforms, total))
    if as_json:
        keys = ("name", "digest", "platforms", "size")
        _print_json([dict(zip(keys, map(_plain, row), strict=True)) for row in rows])
    else:
        cells = [(name, digest.short, on, size(total)) for name, digest, on, total in rows]
        click.echo(render.table(("NAME", "DIGEST", "PLATFORMS", "SIZE"), cells, frozenset({3})))


@torchship.command(epilog=_example("torchship inspect mnist", "torchship inspect mnist --json"))
@click.argument("reference")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(reference: str, as_json: bool) -> None:
    """Show an image: its settings, and each layer's size, share, content and origin."""
    from torchship import render
    from torchship.oci.describe import describe

    store = _store()
    found = describe(store, store.find(reference))
    if as_json:
        _print_json([each.as_json() for each in found])
    else:
        click.echo(render.inspected(found))


@torchship.command(epilog=_example("torchship rmi me/mnist:v0.1"))
@click.argument("references", nargs=-1, required=True)
def rmi(references: tuple[str, ...]) -> None:
    """Remove images by name; `torchship prune` then frees their space."""
    store = _store()
    for reference in references:
        store.remove(reference)
        click.echo(reference)


@torchship.command(epilog=_example("torchship prune"))
def prune() -> None:
    """Free the space of layers that no image uses, and of what was left unfinished."""
    from torchship.display import size
    from torchship.oci.prune import prune as sweep

    freed = sweep(_store())
    click.echo(
        f"freed {size(freed.size)}: {freed.blobs} blobs, {freed.unpacked} unpacked layers", err=True
    )


@torchship.command(epilog=_example("torchship save mnist -o mnist.tar", "docker load -i mnist.tar"))
@click.argument("reference")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The archive to write.",
)
def save(reference: str, output: Path) -> None:
    """Write an image to one file, which is an OCI archive and can be loaded by Docker."""
    from torchship.display import display
    from torchship.oci.reference import Reference
    from torchship.oci.save import save as write

    store = _store()
    found = store.find(reference)
    names = [named.reference for named in store.images() if named.descriptor == found]
    asked = Reference.parse(reference)
    with display() as progress:
        write(
            store,
            found,
            output,
            names=[asked] if asked in names else names,
            progress=progress,
        )
    click.echo(output)


@torchship.command(epilog=_example("torchship doctor"))
def doctor() -> None:
    """Say what this machine has and lacks for building and running, with the fix."""
    from torchship import health

    for finding in health.examine(_store()):
        mark = "ok" if finding.fix is None else "--"
        click.echo(f"{mark}  {finding.subject}: {finding.state}")
        if finding.fix is not None:
            click.echo(f"    {finding.fix}")


def _load(directory: Path) -> Project:
    from torchship.project import project

    return project.load(directory)


def _store() -> Store:
    from torchship.oci.store import Store

    return Store.open()


def _build(
    project: Project,
    names: Sequence[str],
    platforms: Sequence[Platform],
    lock_file: Path | None,
    store: Store,
    progress: Progress,
) -> Descriptor:
    """Lock where needed, build, name, and tell what came of it."""
    from torchship import pipeline
    from torchship.display import size
    from torchship.oci.describe import describe
    from torchship.oci.reference import Reference
    from torchship.project import lock as lockfile

    began = time.monotonic()
    references = [Reference.parse(name) for name in names]
    path = lock_file or project.root / lockfile.FILENAME
    wanted = tuple(platforms) or project.platforms
    pins = pipeline.locked(project, path, store=store, platforms=wanted, progress=progress)
    top = pipeline.build(
        project, pins, store=store, platforms=wanted, names=references, progress=progress
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
    folder = Path(target)
    if folder.is_dir():
        project = _load(folder)
        top = _build(project, (project.name,), (platform,), lock_file, store, progress)
        return top, project.name
    if target.startswith((".", "/", "~")):
        raise UsageError(f"there is no directory {target}")
    return store.find(target), target


def _run_directory(output: Path | None, image: Descriptor) -> RunDirectory:
    from torchship.runs.run import PARENT, RunDirectory

    if output is not None:
        return RunDirectory.at(output)
    return RunDirectory.create(Path(PARENT), image.digest, datetime.now(UTC))


def _plain(value: object) -> object:
    return value if isinstance(value, int) else str(value)


def _print_json(value: object) -> None:
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _parse_platforms(texts: Sequence[str]) -> tuple[Platform, ...]:
    from torchship.platform import Platform

    return tuple(dict.fromkeys(Platform.parse(text) for text in texts))


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"-e {text!r} is not of the form NAME=VALUE")
    return name, value


_FACTORS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _bytes(text: str) -> int:
    """Read Docker's form of an amount of memory: powers of 1024, ``512M``, ``4g``."""
    digits = text.rstrip("bBkKmMgGtTiI")
    unit = text[len(digits) :].upper().replace("IB", "").removesuffix("B") or ""
    try:
        return int(float(digits) * _FACTORS[unit])
    except (ValueError, KeyError):
        raise UsageError(
            f"{text!r} is not an amount of memory", hint="write it as 512M or 4G"
        ) from None


def _complain(error: TorchshipError) -> None:
    click.echo(f"torchship: {error.message}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)


def main() -> None:
    """Run the command line; every error becomes a sentence and an exit code."""
    try:
        torchship(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.exceptions.Abort:
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TorchshipError as error:
        _complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # whoever read the answer has gone: nothing is wrong with us
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        click.echo(f"torchship: cannot use{place}: {error.strerror or error}", err=True)
        if error.errno == errno.ENOSPC:
            click.echo("  free some space; nothing that was finished is lost", err=True)
        sys.exit(1)
