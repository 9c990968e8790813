"""Commands on a project: init, lock, build, dockerfile."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchship.amounts import counted
from torchship.cli import destination
from torchship.cli.common import (
    directory,
    example,
    load,
    lock_file,
    open_store,
    parse_platforms,
    platforms,
)
from torchship.display import one_line
from torchship.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torchship.digest import Descriptor
    from torchship.oci.cache import Cache
    from torchship.oci.reference import Reference
    from torchship.oci.store import Store
    from torchship.platform import Platform
    from torchship.progress import Progress
    from torchship.project.lock import PlatformLock
    from torchship.project.project import Project


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
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH",
    help="Pin for this platform, e.g. linux/arm64, besides those that are pinned already, instead "
    "of for the project's; may be repeated.",
)
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
            click.echo(one_line(change))
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
        what = f"{entry.platform} {entry.variant}".strip()
        torch = f"{entry.torch}, " if entry.torch else ""
        click.echo(
            f"{what}: {torch}{counted(len(entry.wheels), 'wheel')}, "
            f"{counted(len(entry.base.packages), 'Debian package')}, "
            f"{counted(len(found.data), 'data file')}",
            err=True,
        )
    click.echo(path)


@click.command(
    epilog=example("torchship dockerfile examples/mnist", "torchship dockerfile -o Dockerfile")
)
@directory
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write, unless it is there; standard output otherwise.",
)
def dockerfile(directory: Path, output: Path | None) -> None:
    """Write the model Dockerfile of a project, for those who want plain Docker."""
    from torchship.layers.selection import Selection
    from torchship.project import dockerfile as model

    project = load(directory)
    selection = Selection(project.root, exclude=project.exclude)
    text = model.render(project, paths=(path for _, path in selection))
    if output is None:
        click.echo(text, nl=False)
    else:
        click.echo(model.write(text, output))


@click.command(
    epilog=example(
        "torchship build examples/mnist -t me/mnist:v0.1",
        "torchship build --platform linux/amd64 --platform linux/arm64",
        "torchship build -t registry.example/me/mnist:v2 --push "
        "--cache-from registry.example/me/mnist:v1",
    )
)
@directory
@click.option("-t", "--tag", "names", multiple=True, metavar="REF", help="Name the image.")
@platforms
@click.option(
    "--variant", metavar="NAME", help="Of the builds in `torch`, build only this one, e.g. cpu."
)
@lock_file
@click.option("--push", is_flag=True, help="Push what -t names to its registry.")
@click.option(
    "--cache-from",
    "cache_from",
    multiple=True,
    metavar="REF",
    help="Take the layers that this published image has already by digest, without downloading "
    "them; may be repeated. With --push, the names that -t gives are looked at, too.",
)
@click.option("--docker", is_flag=True, help="Write Docker schema 2 manifests, for old tools.")
def build(
    directory: Path,
    names: tuple[str, ...],
    platforms: tuple[str, ...],
    variant: str | None,
    lock_file: Path | None,
    push: bool,
    cache_from: tuple[str, ...],
    docker: bool,
) -> None:
    """Build an OCI image of a project: no Docker, no root, the same bytes everywhere."""
    if push and not names:
        raise UsageError("--push needs a name to push to", hint="give one with -t HOST/NAME:TAG")
    from torchship.display import display
    from torchship.oci.reference import Reference

    project, store = load(directory), open_store()
    named = tuple(Reference.parse(name) for name in names or (project.name,))
    published = tuple(Reference.parse(name) for name in cache_from)
    wanted = parse_platforms(platforms) or project.platforms

    def make(progress: Progress) -> Descriptor:
        cache = None
        if published or push:
            from torchship.oci.cache import Cache

            cache = Cache(
                named=published,
                overwritten=named if push else (),
                platforms=wanted,
                progress=progress,
            )
        # Docker's manifests take the names, and OCI's, which they are made of, never have them.
        kept = () if docker else named
        top = built(project, kept, wanted, lock_file, store, progress, cache=cache, variant=variant)
        if docker:
            from torchship.oci.schema2 import as_docker

            top = as_docker(store, top)
            for reference in named:
                store.tag(reference, top)
        return top

    with display() as progress:
        top = make(progress)
        for name in names if push else ():
            destination.send(store, top, name, progress)
    click.echo(top.digest)


def built(
    project: Project,
    names: Sequence[Reference],
    platforms: Sequence[Platform],
    lock_file: Path | None,
    store: Store,
    progress: Progress,
    *,
    cache: Cache | None = None,
    variant: str | None = None,
    approve: Callable[[PlatformLock], object] | None = None,
) -> Descriptor:
    """Lock where needed, build, name, and tell what came of it; of all variants, or of one.

    ``approve`` is shown what the lock has for each, before any of it is downloaded.
    """
    from torchship import pipeline
    from torchship.amounts import size
    from torchship.layers.selection import left_out
    from torchship.oci.describe import describe
    from torchship.oci.reference import LATEST
    from torchship.project import lock as lockfile
    from torchship.project.project import SETTINGS, is_unnamed

    began = time.monotonic()
    path = lock_file or project.root / lockfile.FILENAME
    wanted = tuple(platforms) or project.platforms
    if variant is not None and variant not in project.torch:
        raise UsageError(
            f"the project has no variant {variant}: tool.torchship.torch is "
            f"{', '.join(project.torch)}",
            hint="name all that the project should have there, in a list",
        )
    variants = (variant,) if variant and len(project.torch) > 1 else ()
    if names_out := left_out(project.root, exclude=project.exclude):
        progress.say(results_left_out(names_out))
    own = [name for name in names if name.familiar == f"{project.name}:{LATEST}"]
    if own and is_unnamed(project) and store.entries().get(own[0]) is None:
        progress.say(
            f"the image is called {project.name}, as its name can have no letter of the "
            f"directory's: `name` in {SETTINGS} gives it another"
        )
    pins = pipeline.locked(project, path, store=store, platforms=wanted, progress=progress)
    if approve is not None:
        for platform in wanted:
            for name in variants or project.variants:
                approve(pins.platform(platform, name))
    top = pipeline.build(
        project,
        pins,
        store=store,
        platforms=wanted,
        variants=variants,
        names=names,
        progress=progress,
        cache=cache,
    )
    named = "".join(f"{name.familiar} " for name in names)
    for found in describe(store, top):
        what = f"{named}{found.image.platform} {found.image.variant}".strip()
        progress.say(
            f"{what}: {counted(len(found.layers), 'layer')}, {size(found.size)}, "
            f"{time.monotonic() - began:.1f} s"
        )
    return top


def results_left_out(names: Sequence[str]) -> str:
    """Say in one line which folders of results are not in the image, and what settles that."""
    first = names[0]
    if len(names) == 1:
        how = f"write `{first}` into .dockerignore to settle that, or `!{first}` to take it in"
    else:
        how = (
            "write each name into .dockerignore to settle that, or one with a ! to take it in, "
            f"as in `!{first}`"
        )
    are = "is" if len(names) == 1 else "are"
    return f"{', '.join(f'{name}/' for name in names)} {are} left out of the image (results); {how}"
