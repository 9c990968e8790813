"""How a seed reaches a program: ``--seed {seed}`` of its command, or ``SEED={seed}``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

MARK = "{seed}"

_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=\{seed\}")


class Seeded(Struct, frozen=True, kw_only=True):
    """A command and the variables that give it one seed."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def fault(template: str) -> str | None:
    """Say why a template gives no seed; None: it does."""
    if template.count(MARK) != 1 or "\0" in template or not template.isprintable():
        return f'{template!r} does not hold {MARK} once: write "--seed {MARK}" or "SEED={MARK}"'
    try:
        words = shlex.split(template)
    except ValueError as error:
        return f"{template!r} is no part of a command: {error}"
    return (
        None if any(MARK in word for word in words) else f"{template!r} hides {MARK} in a comment"
    )


def seeded(command: Sequence[str], template: str | None, seed: int | None) -> Seeded:
    """Return the command with a seed; as it is where it takes none, or none is given."""
    if template is None or seed is None:
        return Seeded(command=tuple(command))
    if match := _VARIABLE.fullmatch(template):
        return Seeded(command=tuple(command), environment={match[1]: str(seed)})
    words = (word.replace(MARK, str(seed)) for word in shlex.split(template))
    return Seeded(command=(*command, *words))


def unseeded(
    command: Sequence[str], environment: Mapping[str, str], template: str | None
) -> tuple[tuple[str, ...], int | None]:
    """Return a command without its seed, and the seed: what `seeded` does, undone.

    Where the template's words stand nowhere in it, the command comes back with None.
    """
    whole = tuple(command)
    if template is None:
        return whole, None
    if match := _VARIABLE.fullmatch(template):
        return whole, _whole(environment.get(match[1], ""))
    shapes = [
        re.escape(word).replace(re.escape(MARK), r"(-?[0-9]+)") for word in shlex.split(template)
    ]
    for start in range(len(whole) - len(shapes), -1, -1):  # the last one counts, as in argparse
        part = whole[start : start + len(shapes)]
        matches = [re.fullmatch(shape, word) for shape, word in zip(shapes, part, strict=True)]
        if all(matches):
            seed = next(found[1] for found in matches if found and found.groups())
            return whole[:start] + whole[start + len(shapes) :], _whole(seed)
    return whole, None


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None
