"""Commands on the machine: doctor."""

from __future__ import annotations

import click

from torchship.cli.common import example, open_store


@click.command(epilog=example("torchship doctor"))
def doctor() -> None:
    """Say what this machine has and lacks for building and running, with the fix."""
    from torchship import health

    for finding in health.examine(open_store()):
        mark = "ok" if finding.fix is None else "--"
        click.echo(f"{mark}  {finding.subject}: {finding.state}")
        if finding.fix is not None:
            click.echo(f"    {finding.fix}")
