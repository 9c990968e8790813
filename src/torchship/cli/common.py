"""What several commands share: their arguments, the store, how an error is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchship.display import clean
from torchship.errors import TorchshipError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchship.oci.store import Store
    from torchship.platform import Platform
    from torchship.project.project import Project


_LINES = "\n\t"


def example(*lines: str) -> str:
    """Return the epilogue of a command's help: the backspace keeps click from wrapping it."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


directory = click.argument(
    "directory", default=".", type=click.Path(path_type=Path, file_okay=False)
)
platforms = click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH",
    help="Build for this platform, e.g. linux/arm64; may be repeated.",
)
lock_file = click.option(
    "--lock",
    "lock_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Use this lock instead of DIR/torchship.lock.",
)


def load(directory: Path) -> Project:
    """Read a project, with all its settings."""
    from torchship.project import project

    return project.load(directory)


def open_store() -> Store:
    """Open the store that the environment names."""
    from torchship.oci.store import Store

    return Store.open()


def parse_platforms(texts: Sequence[str]) -> tuple[Platform, ...]:
    """Read platforms, each once, in the order in which they were given."""
    from torchship.platform import Platform

    return tuple(dict.fromkeys(Platform.parse(text) for text in texts))


def complain(error: TorchshipError) -> None:
    """Tell what is wrong, and what to do next; lines of uv's and apt's explanations stay lines."""
    click.echo(f"torchship: {clean(error.message, keep=_LINES)}", err=True)
    if error.hint:
        click.echo(f"  {clean(error.hint, keep=_LINES)}", err=True)
