"""What ``apt-get --print-uris`` answers, checked, as pins: a mirror's lists are a stranger's.

Source: apt-get(8); Debian policy 5.6 for names and versions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from torchship.digest import Digest
from torchship.errors import ResolveError
from torchship.platform import Platform
from torchship.project.lock import PackagePin
from torchship.project.sources import Entry

PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](=[A-Za-z0-9.+~:-]+)?")
"""A package's name, or ``name=version``."""

_VERSION = re.compile(r"[0-9][A-Za-z0-9.+~:-]*")
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.~_:-]*")
# What --print-uris prints: 'address' name_version_architecture.deb size SHA256:digest
_LINE = re.compile(r"'(?P<uri>[^']+)' (?P<file>[^ ]+)\.deb (?P<size>[0-9]+) (?P<hash>\S*)")


def without_secrets(text: str) -> str:
    """Return a text without the users and passwords of its addresses."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


def pinned(line: str, entries: tuple[Entry, ...], platform: Platform) -> PackagePin:
    """Return the pin of a line that ``apt-get --print-uris`` printed.

    Raises `ResolveError` for one that a list of packages must not lead to: another architecture,
    no sha256, a place outside of the mirrors that ``entries`` name.
    """
    found = _LINE.fullmatch(line.strip())
    if not found:
        raise ResolveError(f"apt-get said something that is no package: {line[:200]!r}")
    uri, size, (algorithm, _, encoded) = found["uri"], found["size"], found["hash"].partition(":")
    parts = [unquote(part) for part in found["file"].split("_")]
    if len(parts) != 3:
        raise ResolveError(f"apt-get named a package oddly: {found['file'][:200]!r}")
    name, version, architecture = parts
    path = _pool_path(uri, entries)
    reasons: Sequence[tuple[bool, str]] = (
        (bool(PACKAGE.fullmatch(name)), "a name that is not a package's"),
        (bool(_VERSION.fullmatch(version)), f"the version {version!r}"),
        (architecture in (platform.debian, "all"), f"the architecture {architecture!r}"),
        (algorithm == "SHA256", "no sha256"),
        (0 < int(size) < 1 << 34, f"a size of {size} bytes"),
    )
    for good, fault in reasons:
        if not good:
            raise ResolveError(f"the mirror's package list gives {name[:80]!r} {fault}")
    return PackagePin(
        name=name,
        version=version,
        architecture=architecture,
        path=path,
        size=int(size),
        digest=Digest(encoded),
    )


def _pool_path(uri: str, entries: tuple[Entry, ...]) -> str:
    address = without_secrets(uri)
    for entry in entries:
        # apt prints file: addresses with one slash.
        root = without_secrets(entry.root)
        for prefix in (f"{root}/", f"{root.replace('file://', 'file:', 1)}/"):
            if address.startswith(prefix):
                path = unquote(address.removeprefix(prefix))
                segments = path.split("/")
                if all(_SEGMENT.fullmatch(part) for part in segments) and len(path) < 500:
                    return path
    raise ResolveError(f"the mirror's package list names an odd place: {address[:200]!r}")
