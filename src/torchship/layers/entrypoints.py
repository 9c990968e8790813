"""The launchers of a wheel's entry points: the programs in ``bin``.

Source: PyPA specifications, "Entry points specification"; the launchers' text is the one that
the pip of Python 3.11 (distlib's script template) writes, so that both give the same file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

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
_GROUPS = ("console_scripts", "gui_scripts")
_NAME = re.compile(r"[\w.+-]+")
# "modname:qualname [extra]": "the extras are deprecated", and say nothing to a launcher.
_VALUE = re.compile(r"(?P<module>\w+(\.\w+)*)\s*:\s*(?P<call>\w+(\.\w+)*)\s*(\[.*\])?")


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


def parse(text: str) -> tuple[EntryPoint, ...]:
    """Read the programs out of an ``entry_points.txt``, by name; the last of a name counts.

    Raises `ValueError` that says which line is no entry point.
    """
    found: dict[str, EntryPoint] = {}
    group = ""
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            group = line.strip("[]").strip()
        elif group in _GROUPS:
            entry = _parse_line(line)
            found[entry.name] = entry
    return tuple(found[name] for name in sorted(found))


def _parse_line(line: str) -> EntryPoint:
    name, equals, value = (part.strip() for part in line.partition("="))
    match = _VALUE.fullmatch(value)
    if not equals or not _NAME.fullmatch(name) or name in (".", "..") or match is None:
        raise ValueError(f"{line!r} is not an entry point of the form name = module:function")
    return EntryPoint(name=name, module=match["module"], call=match["call"])


def for_python(entries: tuple[EntryPoint, ...], version: str) -> tuple[EntryPoint, ...]:
    """Rename pip's own programs after the Python that they are installed for, as pip does.

    Its wheel serves every Python, so that the names which it declares (``pip3.11``) are those
    of the Python that built it. ``version`` is that of the image: ``3.11``.
    """
    named: Mapping[str, EntryPoint] = {entry.name: entry for entry in entries}
    renamed = dict(named)
    for program, pattern, names in (
        ("pip", r"pip(\d+(\.\d+)?)?", ("pip", f"pip{version.partition('.')[0]}", f"pip{version}")),
        (
            "easy_install",
            r"easy_install(-\d+\.\d+)?",
            ("easy_install", f"easy_install-{version}"),
        ),
    ):
        if program not in named:
            continue
        renamed = {name: it for name, it in renamed.items() if not re.fullmatch(pattern, name)}
        main = named[program]
        for name in names:
            renamed[name] = EntryPoint(name=name, module=main.module, call=main.call)
    return tuple(renamed[name] for name in sorted(renamed))
