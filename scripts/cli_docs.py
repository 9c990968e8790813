"""Write the commands into docs/cli.md, from what the commands say of themselves.

python scripts/cli_docs.py        # after a change of a command or an option

What stands above the marker is written by hand and kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from torchship.cli import torchship

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
MARKER = "<!-- what follows is written by scripts/cli_docs.py -->\n"


def commands() -> str:
    """Return a section for each command, in the order of `torchship --help`."""
    with click.Context(torchship, info_name="torchship") as top:
        names = torchship.list_commands(top)
        found = [command for name in names if (command := torchship.get_command(top, name))]
        return "\n".join("\n".join(_section(command, top)) for command in found)


def _section(command: click.Command, top: click.Context) -> Iterator[str]:
    yield f"### torchship {command.name}"
    yield ""
    yield _prose(command.help or "")
    yield ""
    with click.Context(command, info_name=command.name, parent=top) as context:
        yield "```"
        yield f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}"
        yield "```"
        yield ""
        rows = [
            record
            for parameter in command.get_params(context)
            if isinstance(parameter, click.Option)
            and "--help" not in parameter.opts
            and (record := parameter.get_help_record(context))
        ]
    if rows:
        yield "| option | meaning |"
        yield "| --- | --- |"
        for option, meaning in rows:
            yield f"| `{option.replace('|', chr(92) + '|')}` | {' '.join(meaning.split())} |"
        yield ""
    yield "```"
    lines = (command.epilog or "").splitlines()
    yield from (f"$ {line.strip()}" for line in lines if line.strip().startswith("torchship"))
    yield from (f"$ {line.strip()}" for line in lines if line.strip().startswith("docker"))
    yield "```"
    yield ""


def _prose(text: str) -> str:
    paragraphs = text.replace("\b\n", "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def page(present: str) -> str:
    """Return the page with its commands renewed."""
    by_hand, marker, _ = present.partition(MARKER)
    if not marker:
        raise SystemExit(f"{PAGE} has lost its marker: {MARKER}")
    return f"{by_hand}{MARKER}\n{commands()}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
