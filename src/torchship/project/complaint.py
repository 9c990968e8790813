"""What uv says when it finds nothing, in one sentence for people, and without addresses.

Addresses of indexes often hold passwords: of one that does not answer, the host alone is named.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from urllib.parse import urlsplit

from torchship.errors import IndexUnreachable, ResolveError
from torchship.project.target import Target

_ADDRESS = re.compile(r"(?:https?|git\+\w+|ssh)://[^\s'\"`)>\]]+")
_LIMIT = 600  # characters: uv's proofs can be pages long
_ASKED = re.compile(r"(?:Failed to fetch: `?|for url \()(https?://[^\s`)]+)")
_UNPARSED = re.compile(r"Couldn't parse (?:requirement|.*?) in `?([^`\s]+)`?")
_UNREACHABLE = re.compile(
    r"error sending request|Request failed|Failed to fetch|timed out|dns error"
)
_STATUS = re.compile(r"HTTP status[^(]*\((\d{3})[^)]*\)|status code (\d{3})|\b(401|403)\b")
_UNBUILT = re.compile(
    r"(?:all versions of )?([A-Za-z0-9._-]+?)([=<>!~][^ ]*)? ha(?:ve|s) no usable wheels"
)
_HINTED = re.compile(r"Wheels are (?:required|available) for `([^`]+)`")
_UNTAGGED = re.compile(r"([A-Za-z0-9._-]+?)([=<>!~][^ ]*)? ha(?:ve|s) no wheels with a matching ")
_ONE = re.compile(r"==[^=]+")
_DAMAGED = re.compile(r"Failed to extract archive: (\S+\.whl) (.*)")
_ABSENT = re.compile(r"([A-Za-z0-9._-]+) was not found in the (?:package registry|provided)")
_BUILD = re.compile(r"there is no version of torch==([\w.]+)\+(cpu|xpu|cu\d+|rocm[\d.]+)\b")


def explain(stderr: str, target: Target) -> ResolveError:
    """Return the error that tells what uv told on its standard error."""
    text = readable(stderr)
    needs = _without_wheel(text)
    if needs:
        return no_wheel(needs, target)
    if _UNREACHABLE.search(text):
        status = _STATUS.search(text)
        why = next(filter(None, status.groups()), "") if status else _last(text)
        said = f"answers with status {why}" if why.isdigit() else f"does not answer: {why}"
        return IndexUnreachable(
            f"{_index(stderr)} {said}",
            hint="check the network and pip's settings (`pip config list`)",
        )
    damaged = _DAMAGED.search(text)
    if damaged:
        return ResolveError(
            f"{damaged[1]} is no wheel that can be read: {_short(damaged[2])}",
            hint="delete the file and fetch it again; if it stays so, tell the package's "
            "maintainers",
        )
    unparsed = _UNPARSED.search(text)
    if unparsed:
        return ResolveError(
            f"{unparsed[1].rpartition('/')[2]} cannot be read: {_short(text)}",
            hint="write each requirement on one line, as in numpy>=2.0",
        )
    absent = _ABSENT.findall(text)
    if absent:
        listed = ", ".join(dict.fromkeys(absent))
        return ResolveError(
            f"no index has a package {listed}: {_short(text)}",
            hint="check the spelling, or name the index that has it in pip's settings",
        )
    build = _BUILD.search(text)
    if build:
        return ResolveError(
            f"no index has torch {build[1]}+{build[2]}: {_short(text)}",
            hint=f'set torch = "{build[2]}" in [tool.torchship], which asks PyTorch\'s own index, '
            "too",
        )
    return ResolveError(
        f"the requirements do not resolve for {target.platform}, Python {target.minor}: "
        f"{_short(text)}",
        hint="change the requirements so that they fit together",
    )


def no_wheel(needs: Mapping[str, str], target: Target) -> ResolveError:
    """Return the error for packages that are there, but not as wheels that would fit.

    Each is a name, with versions where these are known, ``docopt==0.6.2``, and has what needs it;
    the empty text where that is unknown, or the project.
    """
    first, by = next(iter(needs.items()))
    listed, has = ", ".join(needs), "has" if len(needs) == 1 else "have"
    wanting = f"; {by} needs it" if by and len(needs) == 1 else ""
    return ResolveError(
        f"{listed} {has} no wheel for {target.platform}, Python {target.minor}{wanting}",
        hint="require a version that has one, or build one into a folder, "
        f"`pip wheel --no-deps -w wheels {shlex.quote(first)}`, and name the folder: "
        "`--find-links ./wheels` in requirements.txt, or PIP_FIND_LINKS",
    )


def wanted(name: str, message: str, *, by: str, but: str) -> str:
    """Say which requirement of a package uv's proof begins with, other than ``but``.

    ``by`` is the name of the project whose requirements were asked for, where they have one.

    As in ``wants torch<2.6`` or ``brings torchvision==0.20.0, which needs torch==2.5.0``; empty
    where the proof names none.
    """
    version = rf"({re.escape(name)}[<>=!~][^\s,]*(?:,[<>=!~][^\s,]*)*)"
    for who, need in re.findall(rf"(\S+) (?:depends? on|requires?) {version}", message):
        if need == but:
            continue
        if who in ("you", by):
            return f"wants {need}"
        return f"brings {who}, which needs {need}"
    return ""


def readable(stderr: str) -> str:
    """Join uv's lines into one text: no warnings, no hints of options it has and we have not."""
    kept = []
    for line in stderr.splitlines():
        line = line.strip()
        if not line or line.startswith(("warning:", "Resolved ", "Updating ")):
            continue
        kept.append(re.sub(r"^(error|cause|╰─▶|├─▶|×)[:\s]\s*", "", line))
    text = re.sub(r"\s+", " ", " ".join(kept))
    return _ADDRESS.sub("(address)", text)


def _without_wheel(text: str) -> Mapping[str, str]:
    """Return the requirements that no wheel satisfies, each with what needs it, where that is told.

    With the versions wanted where uv's proof has them: of another package, or in the project.
    """
    versions: dict[str, set[str]] = {}
    for name, version in (*_UNBUILT.findall(text), *_UNTAGGED.findall(text)):
        versions.setdefault(name, set()).add(version)
    if not versions:
        versions = {name: set() for name in _HINTED.findall(text)}
    needs = {}
    for name, found in versions.items():
        if name in ("of", "versions"):
            continue
        alone = "".join(found)
        dependent = re.search(rf"(\S+) depends? on {re.escape(name)}([=<>!~][^\s]*[^\s,])", text)
        version = alone if _ONE.fullmatch(alone) else dependent[2] if dependent else ""
        needs[f"{name}{version}"] = dependent[1] if dependent else ""
    return needs


def _index(stderr: str) -> str:
    """Name the index that was asked by its host, and by nothing else of its address."""
    found = _ASKED.search(stderr)
    host = urlsplit(found[1]).netloc.rpartition("@")[2] if found else ""
    return f"the package index {host}" if host else "a package index"


def _last(text: str) -> str:
    """Return the root cause, which uv gives last."""
    for word in ("Connection refused", "Name or service not known", "timed out", "certificate"):
        if word.lower() in text.lower():
            return word[0].lower() + word[1:]
    return "the request failed"


def _short(text: str) -> str:
    text = text.partition(" hint: ")[0]
    text = text.removeprefix("No solution found when resolving dependencies").strip(" :")
    return text if len(text) <= _LIMIT else f"{text[:_LIMIT].rsplit(' ', 1)[0]} ..."
