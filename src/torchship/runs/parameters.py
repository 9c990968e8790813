"""The parameters of a run, as its command spells them: ``--key value``, ``--key=value``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_OPTION = re.compile(r"--?([A-Za-z][\w.-]*)(?:=(.*))?", re.S)
_WORKERS = frozenset({"workers", "num-workers", "num_workers", "n-workers", "dataloader-workers"})


def parameters(command: Sequence[str]) -> Mapping[str, str]:
    """Return the options of a command; ``true`` stands for one without a value.

    What a program makes of its words only it knows: ``-x -3`` is read as ``x: -3``.
    """
    found: dict[str, str] = {}
    name: str | None = None
    for word in command[1:]:
        match = _OPTION.fullmatch(word)
        if match:
            found[match[1]] = match[2] if match[2] is not None else "true"
            name = match[1] if match[2] is None else None
        else:
            if name is not None:
                found[name] = word
            name = None
    return found


def workers(found: Mapping[str, str]) -> int | None:
    """Return how many processes load data, where the command says it."""
    for name, value in found.items():
        if name in _WORKERS and re.fullmatch(r"[0-9]{1,4}", value):
            return int(value)
    return None
