"""``torchship report``: a record, or a reproduction, as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchship import whole
from torchship.cli.common import example, open_store
from torchship.display import clean
from torchship.errors import TorchshipError

if TYPE_CHECKING:
    from torchship.oci.describe import ImageDescription
    from torchship.runs.publishing import Published
    from torchship.runs.record import Record


@click.command(
    epilog=example(
        "torchship report runs/20261123T020000Z-440fcabf73cc",
        "torchship report theirs.json mine.json -o verdict.html",
    )
)
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.argument("reproducer", required=False, type=click.Path(path_type=Path, exists=True))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the page goes; else report.html in the directory, or FILE.html beside a record.",
)
def report(run: Path, reproducer: Path | None, output: Path | None) -> None:
    """Draw a run, a record or a reproduction as one HTML page.

    RUN is a record.json or a directory that `run`, `record` or `reproduce` wrote; a
    reproduction is shown with the verdict on it. Of two records, the first is the author's.
    The page needs neither network nor script. Its path is printed.
    """
    from torchship.runs.publishing import read

    if reproducer is None:
        click.echo(drawn(run, output))
    else:
        page = _page(read(run), read(reproducer), _folder(reproducer))
        click.echo(_saved(page, output, reproducer))


def drawn(run: Path, output: Path | None = None) -> Path:
    """Draw the record of a file or directory; return the page's path, report.html beside it.

    A directory of `reproduce` also holds the author's record: the page is then the verdict's.
    """
    from torchship.runs.publishing import AUTHOR, read
    from torchship.runs.reproduction import is_reproduction

    author = read(run / AUTHOR) if is_reproduction(run) else None
    return _saved(_page(author, read(run), _folder(run)), output, run)


def draw_beside(run: Path) -> None:
    """Draw a page beside runs, and say where it is; or why there is none, as these count alone."""
    try:
        click.echo(f"report: {drawn(run)}", err=True)
    except (TorchshipError, OSError) as fault:
        click.echo(clean(f"no report could be drawn: {fault}"), err=True)


def _page(author: Published | None, made: Published, folder: Path) -> str:
    """Draw the page; ``folder`` may hold what the runs of ``made`` left."""
    from torchship.runs.confusion import find
    from torchship.runs.report.page import render

    image = _image((author or made).record)
    found = find(folder, made.record)
    for fault in found.faults if found else ():
        click.echo(clean(f"the report does not show {fault}"), err=True)
    if author is None:
        return render(made, image=image, confusion=found)
    return render(author, made, image=image, confusion=found)


def _saved(page: str, output: Path | None, run: Path) -> Path:
    """Write a page where the user said, or beside the run; return its path."""
    from torchship.runs.report.page import FILE

    if output is not None:
        output.write_text(page, encoding="utf-8", newline="\n")
        return output
    beside = run / FILE if run.is_dir() else run.with_suffix(".html")
    # The directory may be a stranger's, with a link in the page's place
    whole.write(beside, page.encode())
    return beside


def _folder(run: Path) -> Path:
    return run if run.is_dir() else run.parent


def _image(record: Record) -> ImageDescription | None:
    """Return the image that ran, if this machine's store has it."""
    from torchship.errors import BlobDamaged, BlobMissing, ImageNotFound
    from torchship.oci.describe import describe
    from torchship.runs.publishing import subject

    store = open_store()
    try:
        found = describe(store, subject(store, record))
    except (ImageNotFound, BlobMissing, BlobDamaged):
        return None
    return next(
        (each for each in found if each.image.descriptor.digest == record.image.manifest), None
    )
