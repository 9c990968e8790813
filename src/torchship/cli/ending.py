"""How a command ends: every error becomes a sentence and an exit status.

0 done; 1 it could not be done; 2 the command line or a setting is wrong; 130 Ctrl-C; an error
may have another of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from torchship.cli import foreign
from torchship.cli.common import complain, unusable
from torchship.errors import TorchshipError

INTERRUPTED = 130


def status(work: Callable[[], object]) -> int:
    """Do some work, tell what is wrong with it, and return the exit status."""
    try:
        work()
    except click.exceptions.Exit as done:
        return done.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        if isinstance(error, click.NoSuchOption) and _takes_command(error.ctx):
            for line in foreign.hints(error.option_name):
                click.echo(f"  {line}", err=True)
        return error.exit_code
    except TorchshipError as error:
        complain(error)
        return error.exit_code
    except BrokenPipeError:
        # whoever read the answer has gone: nothing is wrong with us
        sys.stderr.close()
        return 1
    except OSError as error:
        complain(unusable(error))
        return 1
    return 0


def _takes_command(context: click.Context | None) -> bool:
    return context is not None and any(one.name == "command" for one in context.command.params)
