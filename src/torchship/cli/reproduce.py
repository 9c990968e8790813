"""Published records and verdicts: compare, publish, reproduce.

Exit codes of `compare` and `reproduce` are the verdict's: 0, 1 not reproduced, 3 inconclusive,
4 could not run; 2 is a faulty command line.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from torchship.cli import destination
from torchship.cli.common import (
    choice,
    complain,
    example,
    explained,
    open_store,
)
from torchship.cli.quoted import quoted
from torchship.cli.record import output, run_directory
from torchship.cli.signing import (
    Wanted,
    check,
    signed,
    signed_by,
    signed_issuer,
    trust_config,
)
from torchship.cli.target import Options, prepare, run_options
from torchship.display import clean
from torchship.errors import ImageNotFound, RecordError, TorchshipError, UsageError

if TYPE_CHECKING:
    from torchship.digest import Descriptor, Digest
    from torchship.progress import Progress
    from torchship.runs.record import Record
    from torchship.runs.run import RecordDirectory
    from torchship.runs.verdict import Verdict


@click.command(
    epilog=example(
        "torchship compare theirs.json runs/20261123T020000Z-440fcabf73cc",
        "torchship compare theirs.json mine.json --json",
    )
)
@click.argument("author", type=click.Path(path_type=Path, exists=True))
@click.argument("reproducer", type=click.Path(path_type=Path, exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(author: Path, reproducer: Path, as_json: bool) -> None:
    """Judge a reproduction by its author's record, offline.

    Both are record.json files, or directories that hold one. The exit code is the verdict's.
    """
    from torchship.runs.judgement import Level
    from torchship.runs.publishing import read
    from torchship.runs.verdict import compare as judged

    try:
        theirs, ours = read(author).record, read(reproducer).record
    except RecordError as error:
        complain(error)
        sys.exit(Level.COULD_NOT_RUN.exit_code)
    verdict = judged(theirs, ours)
    tell(verdict, theirs, ours, as_json=as_json)
    sys.exit(verdict.exit_code)


def tell(verdict: Verdict, author: Record, reproducer: Record, *, as_json: bool) -> None:
    """Print a verdict with its numbers, for people or as JSON."""
    from torchship.runs.wording import as_document, told

    if as_json:
        click.echo(json.dumps(as_document(verdict, author, reproducer), indent=2))
        return
    for line in told(verdict, author, reproducer):
        click.echo(clean(line))


@click.command(
    epilog=example(
        "torchship publish registry.example/me/mnist:v0.1",
        "torchship publish registry.example/me/mnist:v0.1 runs/20261123T020000Z-440fcabf73cc",
        "torchship publish registry.example/me/mnist:v0.1 --sign",
    )
)
@click.argument("reference")
@click.argument("path", metavar="[RECORD]", required=False, type=click.Path(path_type=Path))
@click.option("--sign", is_flag=True, help="Sign the record; says first what becomes public.")
@click.option("--yes", "agreed", is_flag=True, help="Agree to that without being asked.")
@trust_config
def publish(
    reference: str, path: Path | None, sign: bool, agreed: bool, trust_config: Path | None
) -> None:
    """Push an image with its record, so that anyone can `torchship reproduce` it.

    RECORD is a record.json or the directory that `record` wrote: the newest in runs/ unless
    given, if it is about REFERENCE or an image of that name. The image is the one that the
    record is about, whatever its name was. A directory that `reproduce` wrote is published as a
    verdict that cites the author's record. --sign needs `torchship[sign]`.
    """
    from torchship.display import display
    from torchship.oci.reference import Reference
    from torchship.runs import publishing, reproduction
    from torchship.runs.run import PARENT

    named = Reference.parse(reference)
    store = open_store()
    known: Digest | None = None
    with suppress(ImageNotFound):
        known = store.find(reference).digest
    path = path or publishing.newest(Path(PARENT), reference, known)
    published = publishing.read(path)
    image = publishing.subject(store, published.record)
    if known is not None and known != image.digest:
        raise UsageError(
            f"{reference} is another image in the store than the record is about",
            hint=f"record {reference}, or first name the recorded image so: "
            f"torchship tag {image.digest} {reference}",
        )
    cites = reproduction.folder(path)
    if sign and cites:
        raise UsageError("--sign signs an author's record, and this is a reproduction of one")
    about = clean(f"{published.record.image.name} ({image.digest.short})")
    click.echo(
        f"publishing the {'reproduction' if cites else 'record'} of {about}: "
        f"{publishing.told(published)}, from {path}",
        err=True,
    )
    if not cites and len(published.record.runs) == 1:
        click.echo(
            "it is of one run, which gives no tolerance but those that you declare: "
            "`torchship record` makes one of several",
            err=True,
        )
    # Before anything is written: whoever does not agree has published nothing.
    bundle = signed(published, trusting=trust_config, agreed=agreed) if sign else None
    store.tag(named, image)
    if cites:
        attached, verdict = reproduction.attach(store, image, cites)
        click.echo(f"reproduced by this record: {verdict.wording}", err=True)
    else:
        attached = publishing.attach(store, image, published)
    if bundle is not None:
        from torchship.runs import signature

        signature.attach(store, image, published, bundle)
    with display() as progress:
        progress.say(
            "what becomes public with the record: its metrics and parameters, the processor, "
            "GPU, kernel and packages that it ran on, and the commit of its source"
        )
        destination.send(store, image, reference, progress)
    click.echo(attached.digest)


@click.command(
    epilog=example(
        "torchship reproduce registry.example/me/mnist:v0.1",
        "torchship reproduce registry.example/me/mnist:v0.1 --runs 3",
        "torchship reproduce registry.example/me/mnist:v0.1 --signed-by ada@example.org",
    )
)
@click.argument("reference")
@click.option(
    "--runs",
    "count",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="How many runs: with the author's seeds first, so that bits can be compared.",
)
@click.option(
    "--record",
    "record_file",
    type=click.Path(path_type=Path, exists=True),
    help="Judge by this record, not by the newest of several runs that is attached.",
)
@output
@run_options(network="Allow the network, where the author's runs had it.", lock=False)
@signed_by
@signed_issuer
@trust_config
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reproduce(
    reference: str,
    count: int,
    record_file: Path | None,
    output: Path | None,
    options: Options,
    signed_by: str | None,
    signed_issuer: str | None,
    trust_config: Path | None,
    as_json: bool,
) -> None:
    """Run a published image again, and judge it by its author's record.

    Pulls the image and its record (a name without a registry that this store built is taken from
    the store), says what to expect, runs, and prints the verdict, whose exit code is returned.
    The program gets no network, and sees nothing of this machine but its own output directory. A
    record of these runs is written beside their outputs.
    """
    from torchship.cli.report import draw_beside
    from torchship.runs.judgement import Level
    from torchship.runs.verdict import Verdict
    from torchship.runs.verdict import compare as judged
    from torchship.runs.wording import document

    wanted = Wanted.parse(signed_by, signed_issuer, trust_config)
    try:
        author, made, folder = _reproduced(
            reference, options, wanted, runs=count, record_file=record_file, output=output
        )
    except UsageError:
        raise
    except (TorchshipError, OSError) as error:
        failed = Verdict(level=Level.COULD_NOT_RUN, reasons=(str(error),))
        if as_json:
            click.echo(json.dumps(document(failed), indent=2))
        else:
            click.echo(explained(f"{failed.wording}: {error}"))
        if isinstance(error, TorchshipError) and error.hint:
            click.echo(f"  {explained(error.hint)}", err=True)
        sys.exit(failed.exit_code)

    verdict = judged(author, made)
    tell(verdict, author, made, as_json=as_json)
    click.echo(f"record: {folder.record}", err=True)
    draw_beside(folder.path)
    sys.exit(verdict.exit_code)


def _reproduced(
    reference: str,
    options: Options,
    wanted: Wanted,
    *,
    runs: int,
    record_file: Path | None,
    output: Path | None,
) -> tuple[Record, Record, RecordDirectory]:
    """Pull, say what to expect, run; return the author's record and one of the runs."""
    from torchship.display import display
    from torchship.runs import publishing, reproducing
    from torchship.runs.expectation import expectation
    from torchship.runs.inside import check_data

    with display() as progress:
        needed = None if record_file else publishing.ARTIFACT_TYPE
        top, listed = fetch(reference, options, progress, needed=needed)
        ready = prepare(str(top.digest), options, progress)
        if record_file:
            published = publishing.read(record_file)
        else:
            serves = wanted.among(ready.store, top, progress)
            published = publishing.chosen(ready.store, top, progress, among=listed, serves=serves)
        published = publishing.about(published, ready.image.descriptor.digest, top.digest)
        check(ready.store, top, published, wanted, progress)
        asked = reproducing.request(
            published.record,
            ready.image,
            network=options.network,
            processors=options.processors,
            memory=options.memory,
            gpus=ready.gpus,
        )
        here, _ = check_data(asked, ready.engine, declared=())
        for sentence in expectation(published.record, here):
            progress.say(clean(f"expect: {sentence}"))
        folder = run_directory(output, ready.image.descriptor.digest)
        ready.store.release()  # the layers are leased: `prune` need not wait for the runs' end
        with quoted(2) as sink:
            made = reproducing.reproduce(
                published,
                replace(asked, stdout=sink, stderr=sink),
                ready.engine,
                runs=runs,
                name=reference,
                index=top.digest,
                directory=folder,
                progress=progress,
            )
    return published.record, made, folder


def fetch(
    reference: str, options: Options, progress: Progress, *, needed: str | None
) -> tuple[Descriptor, tuple[Digest, ...] | None]:
    """Return what a reference names now in its registry, and what refers to it there.

    ``needed`` is the type of what must refer to it, or else nothing is brought. A name without
    a registry is of the store, where the store knows it: then whatever the store has refers to
    it, and None is returned for that.
    """
    from torchship.oci.attached import pull_referrers, refers
    from torchship.oci.pull import pull
    from torchship.oci.reference import Reference, names_registry
    from torchship.runs.publishing import nothing_attached

    named = Reference.parse(reference)
    store = open_store()
    if not names_registry(reference):
        with suppress(ImageNotFound):
            found = store.find(reference)
            # one that its registry has is judged by what is listed there, not by anybody's records
            if named.name not in {origin.name for origin in store.origins.get(found.digest)}:
                return found, None
    if needed is not None and not refers(named, needed):
        raise nothing_attached()
    pulled = pull(
        named,
        store,
        platform=options.platform,
        choice=choice(options.variant, gpus=options.gpus),
        progress=progress,
    )
    listed = pull_referrers(named, store, pulled.descriptor, progress=progress)
    return pulled.descriptor, listed
