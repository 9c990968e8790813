"""Words that another tool would have taken: what stands for them here."""

from __future__ import annotations

from collections.abc import Iterable

BEHIND = "options of your program go behind `--`: torchship run DIR -- python main.py --epochs 1"

_APART = (
    "torchship has nothing like {option}: save the image, `docker load` it, and give {option} to "
    "`docker run`"
)
_DOCKERS = {
    "--rm": ("{option} is not needed: no container is left behind",),
    **dict.fromkeys(
        ("-e", "--env"),
        ('environment = {{NAME = "value"}} in [tool.torchship] sets variables of the image',),
    ),
    **dict.fromkeys(
        (
            *("-d", "--detach", "--entrypoint", "--name", "-p", "--publish", "-u", "--user"),
            *("-w", "--workdir"),
        ),
        (_APART, BEHIND),
    ),
}


def hints(option: str) -> tuple[str, ...]:
    """Return lines that help whoever gave a command that runs images an option it does not have."""
    return tuple(line.format(option=option) for line in _DOCKERS.get(option, (BEHIND,)))


def meant(word: str, known: Iterable[str]) -> str:
    """Say which command was probably meant: `` Did you mean run?``, or nothing."""
    import difflib  # nearly every word is known

    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""
