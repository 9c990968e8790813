"""The command line: arguments, printing, exit codes, and nothing else.

stdout carries the answer, stderr the story. The exit codes are those of `ending`; besides,
``lock --check`` gives 1 for a stale lock, ``run`` 125 where it could not start the program,
whose own exit status it gives otherwise, and ``reproduce`` and ``compare`` the verdict's.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from torchship import __version__
from torchship.cli import ending, foreign
from torchship.cli.common import example
from torchship.display import clean

# The order in which a newcomer meets them. A module is imported when one of its commands is
# asked for, so that an edit, built and pushed, waits for nothing else.
_COMMANDS = {
    "project": ("init", "lock", "build", "dockerfile"),
    "run": ("run",),
    "record": ("record",),
    "reproduce": ("publish", "reproduce", "compare"),
    "launch": ("launch",),
    "report": ("report",),
    "images": ("images", "inspect", "tag", "rmi", "prune", "save", "load"),
    "export": ("sbom", "crate"),
    "registry": ("login", "logout", "push", "pull", "copy", "tags"),
    "machine": ("doctor",),
}
_MODULES = {name: module for module, names in _COMMANDS.items() for name in names}


class _Group(click.Group):
    """Finds a command by name in the module that has it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _MODULES:
            return None
        module = import_module(f"torchship.cli.{_MODULES[cmd_name]}")
        found: click.Command = getattr(module, cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        told = not ctx.resilient_parsing  # completion asks as well, and wants no answer
        if told and args[0] not in _MODULES and not args[0].startswith("-"):
            meant = foreign.meant(args[0], _MODULES)
            raise click.UsageError(f"No such command {clean(args[0])!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Group,
    epilog=example("torchship run examples/mnist -- python main.py --epochs 1"),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="torchship %(version)s")
def torchship() -> None:
    """Ship a PyTorch experiment as a container image that anyone can re-run, and check."""


def main() -> None:
    """Run the command line; every error becomes a sentence and an exit code."""
    sys.exit(ending.status(lambda: torchship(standalone_mode=False)))
