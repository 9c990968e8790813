"""``.dockerignore``: which files of a project stay out, by exactly Docker's rules.

They are Go's ``filepath.Match`` with ``**`` and exceptions, and not gitignore's: a pattern
without a slash matches at the top only, ``!`` takes back what stands in a folder that is left
out, and the last pattern that matches decides. A path is matched when one of its parents is.

Source: Docker's reference, "Dockerfile reference, .dockerignore file"; moby's patternmatcher.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from torchship.errors import ProjectError
from torchship.project import textfile


class Pattern(Struct, frozen=True, kw_only=True):
    """One pattern: ``text`` is cleaned, ``exception`` is true where it began with ``!``.

    What a ``firm`` one matches is taken back by an exception that names it, and by no other. That
    is no rule of Docker's, but for defaults of ours: ``*`` and ``!src``, a list of what goes in,
    take back no cache below ``src``.
    """

    text: str
    exception: bool
    regex: re.Pattern[str]
    firm: bool = False

    def names(self, path: str) -> bool:
        """Say whether this is meant for a path itself, and not for all in a folder."""
        return bool(self.text.rpartition("/")[2].strip("*")) and bool(self.regex.fullmatch(path))


class Patterns(Struct, frozen=True):
    """Patterns in their order; the last one that matches a path or a parent of it decides."""

    patterns: tuple[Pattern, ...] = ()

    @classmethod
    def of(cls, root: Path) -> Patterns:
        """Read the file of a project; no patterns where there is none."""
        path = root / ".dockerignore"
        try:
            lines = textfile.read(path).decode("utf-8-sig").splitlines()
        except FileNotFoundError:
            return cls()
        except OSError as fault:
            hint = "make it a file, or take it away"
            raise ProjectError(f"{path} cannot be read: {fault.strerror}", hint=hint) from None
        except UnicodeDecodeError:
            raise ProjectError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from None
        return cls.parse(lines, origin=".dockerignore")

    @classmethod
    def parse(cls, lines: Iterable[str], *, origin: str) -> Patterns:
        """Read patterns, one a line; raise `ProjectError` that names ``origin`` and the line."""
        found = []
        for number, line in enumerate(lines, start=1):
            # "Lines starting with # are comments": before white space is trimmed.
            text = "" if line.startswith("#") else line.strip()
            if not text:
                continue
            try:
                found.append(_parse(text))
            except ValueError as fault:
                raise ProjectError(
                    f"{origin}:{number}: {text!r} is not a pattern: {fault}",
                    hint="patterns are those of .dockerignore, such as data/ or **/*.log",
                ) from None
        return cls(tuple(found))

    def __add__(self, other: Patterns) -> Patterns:
        return Patterns(self.patterns + other.patterns)

    def matches(self, path: str) -> bool:
        """Say whether a path, relative with slashes, is matched and not taken back."""
        matched, _ = self.decide(path, self.above(path))
        return matched

    def above(self, path: str) -> frozenset[int]:
        """Return what `decide` is told of a path's parent."""
        hits: frozenset[int] = frozenset()
        parts = path.split("/")
        for depth in range(1, len(parts)):
            _, hits = self.decide("/".join(parts[:depth]), hits)
        return hits

    def decide(self, path: str, above: frozenset[int]) -> tuple[bool, frozenset[int]]:
        """Say whether a path is matched, given which patterns matched a parent of it.

        Returns that and which patterns match the path or a parent, to be told of its children.
        """
        hits = {
            number
            for number, pattern in enumerate(self.patterns)
            if number in above or pattern.regex.fullmatch(path)
        }
        if self._has_firm(hits):
            # What was decided of a folder that a firm pattern matches holds for what is in it.
            meant = above if self._has_firm(above) else frozenset()
            hits = {
                hit
                for hit in hits
                if not self.patterns[hit].exception
                or hit in meant
                or self.patterns[hit].names(path)
            }
        return bool(hits) and not self.patterns[max(hits)].exception, frozenset(hits)

    def _has_firm(self, hits: Iterable[int]) -> bool:
        return any(self.patterns[hit].firm for hit in hits)

    def leave_out(
        self, folder: str, hits: frozenset[int], number: int
    ) -> tuple[bool, frozenset[int]]:
        """Say what `decide` would, of a folder that the pattern of this number named as well.

        What takes it back, then, is an exception that names the folder itself: one for its parent
        is not meant for it.
        """
        named = {
            hit
            for hit in hits
            if not self.patterns[hit].exception or self.patterns[hit].regex.fullmatch(folder)
        } | {number}
        return not self.patterns[max(named)].exception, frozenset(named)

    def names_below(self, folder: str) -> bool:
        """Say whether an exception is for something in a folder, and begins with its name."""
        return any(
            pattern.exception and pattern.text.startswith(f"{folder}/") for pattern in self.patterns
        )

    def may_take_back(self, folder: str) -> bool:
        """Say whether an exception could match below a folder: else none need look there."""
        for pattern in self.patterns:
            if not pattern.exception:
                continue
            literal = re.match(r"[^*?\[\\]*", pattern.text)
            assert literal is not None
            known = literal[0]
            whole = len(known) == len(pattern.text)
            if f"{folder}/".startswith(known) and not whole:
                return True
            if known.startswith(f"{folder}/"):
                return True
        return False


def _parse(text: str) -> Pattern:
    exception = text.startswith("!")
    if exception:
        text = text[1:].strip()
        if not text:
            raise ValueError("an exception must name what it takes back")
    # moby: paths are cleaned as Go's filepath.Clean does, and lose their leading slash.
    text = posixpath.normpath(text)
    text = re.sub("^/+(?=.)", "", text)
    return Pattern(text=text, exception=exception, regex=_compile(text))


def _compile(text: str) -> re.Pattern[str]:
    # Where nothing but a literal follows, ``**x`` is moby's "suffix": it need not start a name.
    if text.startswith("**") and not re.search(r"[*?\[\]\\]", text[2:]):
        rest = text[2:]
        literal = re.escape(rest.removeprefix("/"))
        return re.compile(f"(?:.*/)?{literal}" if rest.startswith("/") else f".*{literal}", re.S)
    out = []
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "*":
            if text[position : position + 1] != "*":
                out.append("[^/]*")
                continue
            position += 1
            if text[position : position + 1] == "/":
                position += 1  # "**/" is "**"
            out.append("(?:.*/)?" if position < len(text) else ".*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            class_, position = _class(text, position)
            out.append(class_)
        elif char == "\\":
            if position == len(text):
                raise ValueError("a backslash escapes the character after it, and none is there")
            out.append(re.escape(text[position]))
            position += 1
        else:
            out.append(re.escape(char))
    return re.compile("".join(out), re.S)


def _class(text: str, position: int) -> tuple[str, int]:
    """Translate ``[a-z]``, from after its bracket: Go's path/filepath, "Match", its grammar."""
    out = ["["]
    if text[position : position + 1] == "^":
        out.append("^")
        position += 1
    first = True
    while first or text[position : position + 1] != "]":
        low, position = _class_char(text, position)
        high = low
        if text[position : position + 1] == "-":
            high, position = _class_char(text, position + 1)
        if low > high:
            raise ValueError(f"the range {low}-{high} runs backwards")
        out.append(f"{re.escape(low)}-{re.escape(high)}")
        first = False
    out.append("]")
    return "".join(out), position + 1


def _class_char(text: str, position: int) -> tuple[str, int]:
    char = text[position : position + 1]
    if char == "\\":
        position += 1
        char = text[position : position + 1]
    elif char in ("-", "]"):
        raise ValueError(f"in brackets, {char} is written \\{char}")
    if not char:
        raise ValueError("a bracket is not closed")
    return char, position + 1
