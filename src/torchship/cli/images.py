"""Commands on the images of the store: images, inspect, tag, rmi, prune, save, load."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchship.amounts import counted
from torchship.cli.common import complain, example, open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchship.digest import Descriptor
    from torchship.errors import ImageNotFound
    from torchship.oci.describe import ImageDescription
    from torchship.oci.image import Source
    from torchship.oci.reference import Reference


@click.command(epilog=example("torchship images", "torchship images --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def images(as_json: bool) -> None:
    """List the images in the store."""
    from torchship import render
    from torchship.amounts import size
    from torchship.display import clean
    from torchship.errors import HostileInput, StoreError
    from torchship.oci.describe import describe

    store = open_store()
    rows = []
    for named in store.images():
        try:
            found = describe(store, named.descriptor)
        except (StoreError, HostileInput) as error:
            # One damaged image hides no other; what repairs or removes it needs its name.
            complain(error)
            found = ()
        images = (each.image for each in found)
        platforms = ", ".join(f"{each.platform} {each.variant}".strip() for each in images)
        total = sum(each.size for each in found)
        rows.append((named.reference.familiar, named.descriptor.digest, platforms, total))
    if as_json:
        keys = ("name", "digest", "platforms", "size")
        _print_json([dict(zip(keys, map(_plain, row), strict=True)) for row in rows])
    else:
        cells = [(name, digest.short, clean(on), size(total)) for name, digest, on, total in rows]
        click.echo(render.table(("NAME", "DIGEST", "PLATFORMS", "SIZE"), cells, frozenset({3})))


@click.command(
    epilog=example(
        "torchship inspect mnist", "torchship inspect registry.example/me/mnist:v0.1 --json"
    )
)
@click.argument("reference")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(reference: str, as_json: bool) -> None:
    """Show an image: its settings, each layer's size and origin, its records and verdicts.

    One that is not in the store is looked at in its registry, and not pulled.
    """
    from torchship import render
    from torchship.errors import ImageNotFound
    from torchship.oci import artifact
    from torchship.oci.describe import describe
    from torchship.runs.listing import as_json as listing_json
    from torchship.runs.listing import listing

    store = open_store()
    source: Source
    try:
        top = store.find(reference)
    except ImageNotFound as missing:
        source, top, found = _published(reference, missing)
    else:
        attached = artifact.attached(store)
        source, found = store, describe(store, top, lambda subject: attached.get(subject, ()))
    told: list[object] = []
    for each in found:
        manifest = each.image.descriptor.digest
        records = listing(source, each.referrers, manifest=manifest, top=top.digest)
        if as_json:
            told.append({**each.as_json(), **listing_json(records)})
        else:
            shown = (render.inspected([each]), render.listed(records))
            told.append("\n\n".join(part for part in shown if part))
    if as_json:
        _print_json(told)
    else:
        click.echo("\n\n".join(map(str, told)))


def _published(
    text: str, missing: ImageNotFound
) -> tuple[Source, Descriptor, Sequence[ImageDescription]]:
    """Describe an image of a registry, which ``missing`` says is not in the store."""
    from torchship.errors import ImageNotFound, RegistryError
    from torchship.oci import referrers
    from torchship.oci.describe import describe
    from torchship.oci.reference import Reference
    from torchship.oci.registry.client import Registry

    if "/" not in text:  # a digest, or a name that is most likely one of the user's own
        raise missing
    reference = Reference.parse(text)
    registry = Registry(reference.registry)
    try:
        _, top = registry.manifest(reference)
        source = registry.source(reference.repository)
        find = partial(referrers.referrers, registry, reference.repository)
        return source, top, describe(source, top, find)
    except RegistryError as fault:
        raise ImageNotFound(f"{missing.message}: {fault.message}", hint=fault.hint) from fault


@click.command(epilog=example("torchship tag mnist registry.example/me/mnist:v0.1"))
@click.argument("source")
@click.argument("target")
def tag(source: str, target: str) -> None:
    """Give an image of the store another name, to push it under or to keep it by."""
    store = open_store()
    click.echo(store.tag(target, store.find(source)).familiar)


@click.command(epilog=example("torchship rmi me/mnist:v0.1"))
@click.argument("references", nargs=-1, required=True)
def rmi(references: tuple[str, ...]) -> None:
    """Remove images by name; `torchship prune` then frees their space."""
    store = open_store()
    for reference in references:
        store.remove(reference)
        click.echo(reference)


@click.command(epilog=example("torchship prune"))
@click.option(
    "--downloads", is_flag=True, help="Downloads, too: what is built anew fetches them again."
)
def prune(downloads: bool) -> None:
    """Free the space of layers that no image uses, and of what was left unfinished.

    Wheels, Debian packages and data that were downloaded stay, for the next build.
    """
    from torchship.amounts import size
    from torchship.oci import prune as sweep

    store = open_store()
    freed = sweep.prune(store)
    what = [counted(freed.blobs, "blob"), counted(freed.unpacked, "unpacked layer")]
    total = freed.size
    if downloads:
        what.append("downloads")
        total += sweep.free_downloads(store)
    click.echo(f"freed {size(total)}: {', '.join(what)}", err=True)
    if kept := sweep.downloaded(store):
        click.echo(f"{size(kept)} of downloads stay: --downloads frees them, too", err=True)


@click.command(epilog=example("torchship save mnist -o mnist.tar", "docker load -i mnist.tar"))
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
    from torchship.oci.artifact import attached_to
    from torchship.oci.complete import complete
    from torchship.oci.image import held
    from torchship.oci.save import save as write

    store = open_store()
    found = store.find(reference)
    names = [named.reference for named in store.images() if named.descriptor == found]
    with display() as progress:
        complete(store, found, platform=None, progress=progress)
        about = attached_to(store, [found.digest, *(each.digest for each in held(store, found))])
        asked = _asked(reference, names)
        write(store, found, output, names=asked, attached=about, progress=progress)
    click.echo(output)


@click.command(epilog=example("torchship load mnist.tar"))
@click.argument("archive", type=click.Path(path_type=Path))
def load(archive: Path) -> None:
    """Take images from an archive (of torchship, docker or skopeo) or an OCI layout folder."""
    from torchship.oci.load import load as read

    for loaded in read(open_store(), archive):
        for name in loaded.names:
            click.echo(f"{name.familiar} {loaded.descriptor.digest}")
        if loaded.subject is not None:
            click.echo(f"{loaded.descriptor.digest} refers to {loaded.subject}", err=True)
        elif not loaded.names:
            click.echo(loaded.descriptor.digest)


def _asked(text: str, names: Sequence[Reference]) -> Sequence[Reference]:
    """Return the name that an image was asked for by; all that it has, where it was a digest."""
    from torchship.errors import InvalidReference
    from torchship.oci.reference import Reference

    try:
        asked = Reference.parse(text)
    except InvalidReference:
        return names
    return [asked] if asked in names else names


def _plain(value: object) -> object:
    return value if isinstance(value, int) else str(value)


def _print_json(value: object) -> None:
    import json

    text = json.dumps(value, indent=2, ensure_ascii=False)
    # Outside of strings there is nothing to escape but the lines' ends
    click.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))
