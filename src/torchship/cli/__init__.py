"""The command line: arguments, printing, exit codes, and nothing else.

stdout carries the answer, stderr the story. Exit codes: 0 done; 1 it could not be done (or
``lock --check`` found the lock stale); 2 the command line or a setting is wrong; 125
``run`` could not start the program, whose own exit status is given otherwise; 130 Ctrl-C.
"""

from __future__ import annotations

import errno
import sys

import click

from torchship import __version__
from torchship.cli import images, machine, project, registry, run
from torchship.cli.common import complain, example
from torchship.errors import TorchshipError

INTERRUPTED = 130


class _Group(click.Group):
    """Lists commands in the order in which a newcomer meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(self.commands)


@click.group(
    cls=_Group,
    epilog=example("torchship run examples/mnist -- python main.py --epochs 1"),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="torchship %(version)s")
def torchship() -> None:
    """Ship a PyTorch experiment as a container image that anyone can re-run, and check."""


for command in (
    *(project.init, project.lock, project.build, run.run),
    *(images.images, images.inspect, images.rmi, images.prune, images.save, images.load),
    *(registry.login, registry.logout, registry.push, registry.pull, registry.tags),
    machine.doctor,
):
    torchship.add_command(command)


def main() -> None:
    """Run the command line; every error becomes a sentence and an exit code."""
    try:
        torchship(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TorchshipError as error:
        complain(error)
        sys.exit(error.exit_code)
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
