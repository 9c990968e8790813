"""What packages say of themselves: a wheel's METADATA, dpkg's status, os-release.

All of it is a stranger's text. What cannot be read is no package; nothing here fails.

Sources: Core metadata specifications (packaging.python.org); deb-control(5); os-release(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct
from packaging.metadata import parse_email
from packaging.utils import canonicalize_name, is_normalized_name

_BLANK = re.compile(r"\n[ \t]*\n")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")  # Debian Policy, 5.6.1
_LONGEST = 1000  # characters of a name, version or licence: longer ones are something else


class Distribution(Struct, frozen=True, kw_only=True):
    """An installed wheel. ``name`` is normalised; ``requires`` are its requirements, as written.

    ``expression`` is its licence as SPDX writes them; ``licences`` what older metadata say: the
    ``License`` field, where it is one line, else the classifiers' last words.
    """

    name: str
    version: str
    summary: str = ""
    expression: str = ""
    licences: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()


class Package(Struct, frozen=True, kw_only=True):
    """An installed Debian package. ``depends`` holds alternatives; names without versions.

    ``source`` is the name of its source package, which security advisories go by.
    """

    name: str
    version: str
    architecture: str
    source: str
    summary: str = ""
    depends: tuple[tuple[str, ...], ...] = ()
    provides: tuple[str, ...] = ()


def read_distribution(metadata: bytes) -> Distribution | None:
    """Read a METADATA file; None where it names no project."""
    raw, _ = parse_email(metadata)
    name, version = canonicalize_name(_line(raw.get("name"))), _line(raw.get("version"))
    if not is_normalized_name(name) or not version:
        return None
    free = raw.get("license", "").strip()
    licences: tuple[str, ...] = (
        (free,) if _line(free) == free != "" and free.upper() != "UNKNOWN" else ()
    )
    if not licences:
        classified = (text.split(" :: ") for text in raw.get("classifiers", ()))
        licences = tuple(
            dict.fromkeys(
                _line(words[-1]) for words in classified if words[0] == "License" and words[1:]
            )
        )
    return Distribution(
        name=name,
        version=version,
        summary=_line(raw.get("summary")),
        expression=_line(raw.get("license_expression")),
        licences=tuple(text for text in licences if text and text != "OSI Approved"),
        requires=tuple(raw.get("requires_dist", ())),
    )


def read_packages(status: bytes) -> Iterator[Package]:
    """Read dpkg's status: the packages that are installed, in its order."""
    from debian.deb822 import Deb822

    for paragraph in _BLANK.split(status.decode("utf-8", "replace")):
        field = {key.lower(): value for key, value in Deb822(paragraph).items()}.get
        name, version = _line(field("package")), _line(field("version"))
        # dpkg(1): "installed"; images of distroless leave the field out
        state = field("status", "installed").split()
        if not _NAME.fullmatch(name) or not version or state[-1:] != ["installed"]:
            continue
        depends = ",".join(filter(None, (field("pre-depends"), field("depends"))))
        yield Package(
            name=name,
            version=version,
            architecture=_line(field("architecture")),
            source=_line(field("source")).partition(" ")[0] or name,
            summary=_line(field("description", "").partition("\n")[0]),
            depends=tuple(
                tuple(_bare(choice) for choice in group.split("|"))
                for group in depends.split(",")
                if group.strip()
            ),
            provides=tuple(_bare(each) for each in field("provides", "").split(",") if each),
        )


def read_release(text: bytes) -> Mapping[str, str]:
    """Read os-release: its variables, without their quotes."""
    lines = (line.partition("=") for line in text.decode("utf-8", "replace").splitlines())
    return {
        name.strip(): _line(value.strip().strip("\"'"))
        for name, equals, value in lines
        if equals and not name.startswith("#")
    }


def _bare(relation: str) -> str:
    """Return the name that a relation is about: ``python3:any (>= 3.11)`` gives ``python3``."""
    return relation.partition("(")[0].partition("[")[0].strip().partition(":")[0]


def _line(text: str | None) -> str:
    """Return a text that is one short line; nothing for any other."""
    text = (text or "").strip()
    return text if len(text) <= _LONGEST and text.isprintable() else ""
