"""What several commands share: their arguments, the store, how an error is told."""

from __future__ import annotations

import errno
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchship.display import Aside, clean
from torchship.errors import TorchshipError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchship.engines.gpu import Gpus
    from torchship.oci.store import Store
    from torchship.oci.variant import Choice
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
engine = click.option(
    "--engine",
    type=click.Choice(["auto", "docker", "podman", "native"]),
    default="auto",
    show_default=True,
    envvar="TORCHSHIP_ENGINE",
    help="What runs the image; auto takes the first of these that works here. "
    "TORCHSHIP_ENGINE names another default.",
)
gpus = click.option(
    "--gpus",
    metavar="WHICH",
    default="auto",
    show_default=True,
    help="auto (all, where the image has CUDA and the machine has GPUs), none, all, a number, "
    "or device=0,1.",
)
cpus = click.option(
    "--cpus",
    metavar="N",
    type=click.FloatRange(min=0, min_open=True),
    help="Use at most N cores.",
)
memory = click.option("--memory", metavar="BYTES", help="At most this much: 4G is 4 times 1024³.")
platform = click.option("--platform", metavar="OS/ARCH", help="Run this platform of an index.")
variant = click.option(
    "--variant",
    metavar="NAME",
    help="Of an image's builds of torch, take this one (cpu, cu130); else by the machine's GPU.",
)
lock_file = click.option(
    "--lock",
    "lock_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Use this lock instead of DIR/torchship.lock; it is written where it does not fit.",
)


def load(directory: Path, *, command: Sequence[str] = ()) -> Project:
    """Read a project, with all its settings; with a ``command`` that is run instead of its own."""
    from torchship.project import project

    return project.load(directory, command=command)


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


def run_directory(
    context: click.Context,  # noqa: ARG001 (click's signature)
    option: click.Parameter,  # noqa: ARG001
    value: str | None,
) -> Path | None:
    """Read ``-o`` of a run; refuse what cannot be its own folder, before anything is built."""
    if value is None:
        return None
    if not value:
        raise UsageError("-o names no directory", hint="name a new one, such as -o first")
    from torchship.runs.run import check

    check(Path(value))
    return Path(value)


def open_store() -> Store:
    """Open the store that the environment names; damaged blobs that it comes upon are told."""
    from torchship.oci.store import Store

    return Store.open(progress=Aside())


def parse_platforms(texts: Sequence[str]) -> tuple[Platform, ...]:
    """Read platforms, each once, in the order in which they were given."""
    from torchship.platform import Platform

    return tuple(dict.fromkeys(Platform.parse(text) for text in texts))


def choice(variant: str | None, *, gpus: Gpus, engine: str = "", checked: bool = True) -> Choice:
    """Return what chooses from an image's variants: the one that was named, or by the machine.

    ``engine`` is the name of the one that will run it, where that is known; ``checked`` tells
    whether the driver must be new enough.
    """

    def suiting(offered: tuple[str, ...]) -> str:
        from torchship.engines.nvidia import survey
        from torchship.engines.variant import suited

        return suited(offered, wish=gpus, engine=engine, machine=survey(), checked=checked)

    return suiting if variant is None else lambda _: variant


def check_command(command: Sequence[str], own: Sequence[str]) -> None:
    """Refuse options alone behind ``--``; ``own`` is the image's command, to be shown with them."""
    if not command or not command[0].startswith("-"):
        return
    whole = shlex.join([*(own or ("PROGRAM",)), *command])
    raise UsageError(
        f"{command[0]} is an option, and no program that could be started",
        hint=f"what follows -- is the whole command: -- {whole}",
    )


def unusable(error: OSError) -> TorchshipError:
    """Return what is told where the system refuses a file, or has no room for it."""
    place = f"cannot use {error.filename}" if error.filename else "something cannot be used"
    room = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return TorchshipError(
        f"{place}: {error.strerror or error}",
        hint="free some space; nothing that was finished is lost" if room else None,
    )


def complain(error: TorchshipError) -> None:
    """Tell what is wrong, and what to do next."""
    click.echo(f"torchship: {explained(error.message)}", err=True)
    if error.hint:
        click.echo(f"  {explained(error.hint)}", err=True)


def explained(text: str) -> str:
    """Leave an error's text to the terminal: lines of uv's and apt's explanations stay lines.

    All but the first are indented, so that a stranger's words in it begin no line.
    """
    return clean(text, keep=_LINES).replace("\n", "\n  ")
