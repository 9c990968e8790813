"""Images and runs in other tools' formats: sbom, crate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchship.cli import destination
from torchship.cli.common import example, open_store
from torchship.errors import UsageError

if TYPE_CHECKING:
    from torchship.digest import Descriptor
    from torchship.oci.image import Image
    from torchship.oci.store import Store
    from torchship.progress import Progress


@click.command(
    epilog=example(
        "torchship sbom mnist > mnist.cdx.json",
        "torchship sbom registry.example/me/mnist:v0.1 --push",
    )
)
@click.argument("reference")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file; to standard output unless given.",
)
@click.option("--platform", metavar="OS/ARCH", help="Of this platform of an index.")
@click.option("--variant", metavar="NAME", help="Of this build of torch (cpu, cu130).")
@click.option("--attach", is_flag=True, help="Attach it to the image; a push then sends it along.")
@click.option("--push", is_flag=True, help="Attach it, and push the image with it.")
def sbom(
    reference: str,
    output: Path | None,
    platform: str | None,
    variant: str | None,
    attach: bool,
    push: bool,
) -> None:
    """List what is in an image, as a CycloneDX bill of materials (SBOM).

    Every wheel, Debian package and data file, read from the layers themselves: so it also works
    for images that others built. The same image gives the same bytes. Attached, it is made for
    each platform and variant that the store has, and the digests of what was attached are printed.
    Needs `torchship[sbom]`.
    """
    from torchship.display import display
    from torchship.export.bom import MEDIA_TYPE
    from torchship.export.bom import sbom as made
    from torchship.oci import artifact

    attaches = attach or push
    if attaches and output is not None:
        raise UsageError("-o writes one file and --attach none: use one of them at a time")
    store = open_store()
    attached = []
    with display() as progress:
        top = _found(store, reference, platform, variant, progress)
        images = _images(store, top, platform, variant, every=attaches, progress=progress)
        documents = [made(image, store.open_blob) for image in images]
        if attaches:
            for image, document in zip(images, documents, strict=True):
                content = artifact.Content(document, MEDIA_TYPE, "sbom.cdx.json")
                attached.append(artifact.attach(store, image.descriptor, MEDIA_TYPE, [content]))
        if push:
            destination.send(store, top, reference, progress)
    if attaches:
        for descriptor in attached:
            click.echo(descriptor.digest)
    elif output is not None:
        output.write_bytes(documents[0])
        click.echo(output)
    else:
        click.echo(documents[0], nl=False)


@click.command(
    epilog=example(
        "torchship crate runs/20261123T020000Z-440fcabf73cc",
        "torchship crate runs/20261123T020000Z-440fcabf73cc -o mnist-runs.zip",
    )
)
@click.argument("path", metavar="RUN", type=click.Path(path_type=Path, exists=True))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Copy it all into this new folder or .zip file; unless given, RUN becomes the crate.",
)
@click.option("--license", "licence", metavar="NAME", help="How it may be used, e.g. CC-BY-4.0.")
@click.option("--agent", metavar="WHO", help='Who ran it: "Ada Lovelace <https://orcid.org/...>".')
def crate(path: Path, output: Path | None, licence: str | None, agent: str | None) -> None:
    """Describe a run for research archives, as a Process Run Crate (RO-Crate 1.1).

    RUN is a directory that `run`, `record` or `reproduce` wrote, with all its outputs; or a
    record.json alone, with -o. Nobody and no licence is named unless you do. The path of what was
    written is printed.
    """
    from torchship.export.crate import Named, Stated
    from torchship.export.crate import crate as described
    from torchship.export.packing import save_folder, save_here, save_zip

    if output is None and not path.is_dir():
        raise UsageError(f"{path} is no directory", hint="say where the crate goes with -o DIR")
    stated = Stated(
        agent=Named.person(agent) if agent else None,
        licence=Named.licence(licence) if licence else None,
    )
    made = described(path, stated)
    if output is None:
        click.echo(save_here(made, path))
    elif output.suffix == ".zip":
        click.echo(save_zip(made, output))
    else:
        click.echo(save_folder(made, output).parent)


def _found(
    store: Store, reference: str, platform: str | None, variant: str | None, progress: Progress
) -> Descriptor:
    """Return an image of the store; one that is not there is pulled."""
    from torchship.errors import ImageNotFound
    from torchship.oci.pull import pull
    from torchship.oci.reference import Reference
    from torchship.platform import Platform

    try:
        return store.find(reference)
    except ImageNotFound:
        if reference.startswith("sha256:"):
            raise
    pulled = pull(
        Reference.parse(reference),
        store,
        platform=Platform.parse(platform) if platform else Platform.host(),
        choice=(lambda _: variant) if variant else None,
        progress=progress,
    )
    return pulled.descriptor


def _images(
    store: Store,
    top: Descriptor,
    platform: str | None,
    variant: str | None,
    *,
    every: bool,
    progress: Progress,
) -> list[Image]:
    """Return the images that are asked for, with all their layers in the store."""
    from torchship.oci.complete import complete
    from torchship.oci.image import held, read_image, read_one
    from torchship.platform import Platform

    if every and platform is None and variant is None:
        complete(store, top, platform=None, progress=progress)
        return [read_one(store, each) for each in held(store, top)]
    wanted = Platform.parse(platform) if platform else Platform.host()
    complete(store, top, platform=wanted, variant=variant or "", progress=progress)
    return [read_image(store, top, wanted, variant or "")]
