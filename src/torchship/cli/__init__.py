"""The command line: arguments, printing, exit codes, and nothing else.

stdout carries the answer, stderr the story. Exit codes: 0 done; 1 it could not be done (or
``lock --check`` found the lock stale); 2 the command line or a setting is wrong; 125
``run`` could not start the program, whose own exit status is given otherwise; 130 Ctrl-C.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module

import click

from torchship import __version__
from torchship.cli.common import complain, example, unusable
from torchship.errors import TorchshipError

INTERRUPTED = 130

_NEW_OBJECTS = 100_000
"""Python looks for unreachable cycles when so many objects more were made than given up."""


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


@click.group(
    cls=_Group,
    epilog=example("torchship run examples/mnist -- python main.py --epochs 1"),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="torchship %(version)s")
def torchship() -> None:
    """Ship a PyTorch experiment as a container image that anyone can re-run, and check."""


_DASHES = "options of your program go behind `--`: torchship run DIR -- python main.py --epochs 1"


def _takes_command(context: click.Context | None) -> bool:
    return context is not None and any(one.name == "command" for one in context.command.params)


def main() -> None:
    """Run the command line; every error becomes a sentence and an exit code."""
    # A command is short, and what it makes first, its modules, it needs to its end: to look for
    # cycles among them every 700 objects takes a tenth of an edit's build.
    gc.set_threshold(_NEW_OBJECTS)
    try:
        _run()
    finally:
        gc.freeze()  # nor does the interpreter look for them when it ends


def _run() -> None:
    try:
        torchship(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        if isinstance(error, click.NoSuchOption) and _takes_command(error.ctx):
            click.echo(f"  {_DASHES}", err=True)
        sys.exit(error.exit_code)
    except TorchshipError as error:
        complain(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # whoever read the answer has gone: nothing is wrong with us
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        complain(unusable(error))
        sys.exit(1)
