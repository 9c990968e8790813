"""Commands on the machine: doctor."""

from __future__ import annotations

import click

from torchship.cli.common import example, open_store


@click.command(epilog=example("torchship doctor"))
def doctor() -> None:
    """Say what this machine has and lacks for building and running, with the fix.

    ok: it works. no: it does not, and is not needed. --: a fault, with the fix below.
    """
    from torchship import health

    for finding in health.examine(open_store()):
        mark = "--" if finding.fix is not None else "ok" if finding.usable else "no"
        click.echo(f"{mark}  {finding.subject}: {finding.state}")
        if finding.fix is not None:
            click.echo(f"    {finding.fix}")
