"""The launchers of a wheel's entry points: the programs in ``bin``.

Source: PyPA specifications, "Entry points specification"; the launchers' text is the one that
the pip of Python 3.11 (distlib's script template) writes, so that both give the same file. pip
also takes lines that the specification does not know, and so what it makes of them counts here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct, field

_LAUNCHER = """\
#!{python}
# -*- coding: utf-8 -*-
import re
import sys
from {module} import {name}
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit({call}())
"""
_NAME_MAX = 255  # bytes of a file's name
_CONSOLE, _GUI = "console_scripts", "gui_scripts"
# Searched for in "name = value", as distlib does: what stands before and after is not looked at,
# so that ``my prog = m:x()`` makes the program ``prog``. A name begins where a run of its letters
# does: no other place gives another match, and a stranger's long line would take long.
_SPECIFICATION = re.compile(
    r"(?<![\w.+-])(?P<name>[\w.+-]++)\s*+=\s*(?P<object>\w+([:.]\w+)*)"
    r"\s*(?P<extras>\[\s*[\w-]+(=\w+)?(,\s*\w+(=\w+)?)*\s*\])?"
)
_ITSELF = {
    "pip": (re.compile(r"pip(\d+(\.\d+)?)?"), ("pip", "pip{major}", "pip{minor}")),
    "easy_install": (
        re.compile(r"easy_install(-\d+\.\d+)?"),
        ("easy_install", "easy_install-{minor}"),
    ),
}
"""Of pip's and setuptools' own programs: names that a wheel declares, and those that they get."""


class EntryPoint(Struct, frozen=True, kw_only=True):
    """A program that a wheel declares: call ``call`` of ``module``."""

    name: str
    module: str
    call: str

    def launcher(self, python: str) -> bytes:
        """Return the program's text; ``python`` is the absolute path of its interpreter."""
        text = _LAUNCHER.format(
            python=python, module=self.module, name=self.call.partition(".")[0], call=self.call
        )
        return text.encode()


class Declared(Struct, frozen=True, kw_only=True):
    """What an ``entry_points.txt`` declares: by its own names, each with its value.

    ``faulty`` are the lines of the programs' groups that are no ``name = value``.
    """

    console: Mapping[str, str] = field(default_factory=dict)
    gui: Mapping[str, str] = field(default_factory=dict)
    faulty: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The names as they stand there: those of the launchers that a wheel's builder made."""
        return frozenset((*self.console, *self.gui))

    def programs(self, python: str) -> tuple[tuple[EntryPoint, ...], tuple[str, ...]]:
        """Return the programs, in pip's order, and the lines that it refuses.

        Where two have one name, the later is the one that stays. ``python`` is the image's
        version, ``3.11``, that pip's own programs are named after.
        """
        made: list[EntryPoint] = []
        refused = list(self.faulty)
        for name, value in _specifications(self, python):
            specification = f"{name} = {value}"
            program = _program(specification)
            if program is None:
                refused.append(specification)
            else:
                made.append(program)
        return tuple(made), tuple(refused)


def parse(text: str) -> Declared:
    """Read the programs out of an ``entry_points.txt``; of a group's names the last counts."""
    groups: dict[str, dict[str, str]] = {_CONSOLE: {}, _GUI: {}}
    faulty = []
    group = ""
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            group = line.strip("[]")  # blanks and all: pip knows no group of such a name
        elif group in groups:
            name, equals, value = (part.strip() for part in line.partition("="))
            if equals:
                groups[group][name] = value
            else:
                faulty.append(line)
    return Declared(console=groups[_CONSOLE], gui=groups[_GUI], faulty=tuple(faulty))


def _specifications(declared: Declared, python: str) -> Iterable[tuple[str, str]]:
    """Yield (name, value) in pip's order: its own programs, the console's, the GUI's.

    pip's wheel serves every Python, so that the names which it declares (``pip3.9``) are those
    of the Python that built it: they are named after the Python that they are installed for.
    """
    rest = dict(declared.console)
    for program, (pattern, names) in _ITSELF.items():
        value = rest.pop(program, "")
        if not value:
            continue
        rest = {name: it for name, it in rest.items() if not pattern.fullmatch(name)}
        for name in names:
            yield name.format(major=python.partition(".")[0], minor=python), value
    yield from rest.items()
    yield from declared.gui.items()


def _program(specification: str) -> EntryPoint | None:
    """Return the program that pip makes of ``name = value``; None where it refuses the wheel."""
    match = _SPECIFICATION.search(specification)
    if match is None or match["name"] in (".", "..") or len(match["name"].encode()) > _NAME_MAX:
        return None
    if match["extras"] is None and re.search(r"[][]", specification):
        return None
    module, colon, call = match["object"].partition(":")
    if not colon or ":" in call:
        return None
    return EntryPoint(name=match["name"], module=module, call=call)
