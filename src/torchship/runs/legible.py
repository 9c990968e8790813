"""Strangers' names and any number, made fit to be shown on a page.

What a record holds was checked as to its form only: a name may have control characters, turn
the direction of reading, pile accents on a letter, or be sixty thousand letters long.
"""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import datetime

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MINUS = "\N{MINUS SIGN}"

_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_ONE = ("1", f"{MINUS}1")
_BLANKS = re.compile(r"[ \t\r\n]+")
_MOST_MARKS = 3  # Vietnamese takes two on a letter, Hebrew three; a pile of them hides lines above


def legible(text: str) -> str:
    """Leave nothing that is not printed, and no piles of combining marks; lines become one."""
    if text.isascii() and text.isprintable():
        return text
    found, marks = [], 0
    for letter in _BLANKS.sub(" ", text):
        marks = marks + 1 if unicodedata.category(letter) in ("Mn", "Me") else 0
        if marks <= _MOST_MARKS:
            found.append(letter if letter.isprintable() else REPLACEMENT)
    return "".join(found)


def cut(text: str, most: int) -> str:
    """Return at most that many characters, the last one telling that there were more."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def number(value: float | None, digits: int = 6) -> str:
    """Write a number with so many significant digits, and a minus that is one."""
    if value is None:
        return "not known"
    if not math.isfinite(value):
        return "too large"
    mantissa, mark, power = f"{value:.{digits}g}".replace("-", MINUS).partition("e")
    if not mark:
        return mantissa
    raised = power.replace(MINUS, "-").lstrip("+")
    shown = f"10{str(int(raised)).translate(_RAISED)}"
    return f"{mantissa.removesuffix('1')}{shown}" if mantissa in _ONE else f"{mantissa}×{shown}"


def sentence(text: str) -> str:
    """Begin with a capital letter."""
    return text[:1].upper() + text[1:]


def signed(value: float | None) -> str:
    """Write a difference: with its sign, also where it is more."""
    return number(value) if not value or value < 0 else f"+{number(value)}"


def percent(share: float | None) -> str:
    """Write a share in percent; only what is all, or nothing, is 100 or 0."""
    if share is None:
        return ""
    if share in (0, 1):
        return f"{100 * share:.0f}%"
    if share > 0.9995:
        return "> 99.9%"
    return "< 0.1%" if share < 0.0005 else f"{100 * share:.1f}%"


def duration(seconds: float) -> str:
    """Write how long something took, in the unit that people would use."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 1e7 else f"{number(seconds / 86400, 3)} days"


def day(when: datetime) -> str:
    """Write a day in English, in whatever locale the machine is."""
    return f"{when.day} {_MONTHS[when.month - 1]} {when.year}"
