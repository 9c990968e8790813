"""Where this machine gets Debian packages from: its own apt entries, or the user's setting.

Two environment variables replace the machine's entries, for machines that are no Debian and
for mirrors of one's own:

``TORCHSHIP_DEBIAN_MIRROR``
    One or more roots (``http:``, ``https:`` or ``file:`` addresses, or absolute paths),
    separated by spaces. A root is the folder that ``dists/`` and ``pool/`` are in.
``TORCHSHIP_DEBIAN_TRUSTED=1``
    Those roots carry no signature, and are believed all the same.

``TORCHSHIP_DEBIAN_SNAPSHOT`` names an archive that keeps what mirrors drop, by the address
below which it has ``archive/debian/<time>/<pool path>``.

Source: sources.list(5), both its one-line and its deb822 style.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from debian.deb822 import Deb822
from msgspec import Struct

from torchship.errors import FetchError, ResolveError, UsageError
from torchship.project.fetch.address import Address
from torchship.project.fetch.part import SourceFailed, local_path

MIRROR = "TORCHSHIP_DEBIAN_MIRROR"
SNAPSHOT = "TORCHSHIP_DEBIAN_SNAPSHOT"
TRUSTED = "TORCHSHIP_DEBIAN_TRUSTED"
ETC = Path("/etc/apt")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Options of an entry that say how far it is believed. Others (Architectures, Languages,
# Targets) say what the machine itself wants of it, which is not what an image wants.
_KEPT = ("Signed-By", "Trusted", "Check-Valid-Until", "Valid-Until-Max", "Check-Date", "By-Hash")
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<rest>\S.*)")
_SUITE = re.compile(r"[a-z][a-z0-9.-]*")
# Releases whose entries name mirrors of Debian: those have every release that is supported.
_RELEASE = re.compile(
    r"(bullseye|bookworm|trixie|forky|duke|(old){0,2}stable|testing|sid|unstable)(-.*)?"
)
_SCHEMES = ("http", "https", "file", "mirror+file")


class Entry(Struct, frozen=True, kw_only=True):
    """One place to get a suite from. ``root`` is an address that ends without a slash.

    ``options`` are further fields in deb822 style: ``Signed-By: ...``.
    """

    root: str
    suite: str
    options: tuple[str, ...] = ()

    @property
    def stanza(self) -> str:
        """The entry in deb822 style, restricted to the packages of ``main``."""
        lines = [
            "Types: deb",
            f"URIs: {self.root}/",
            f"Suites: {self.suite}",
            "Components: main",
            "Targets: Packages",
            "Languages: none",
            *self.options,
        ]
        return "\n".join(lines) + "\n"


def suites(suite: str) -> tuple[str, ...]:
    """Return the names under which Debian publishes a suite and its updates."""
    if not _SUITE.fullmatch(suite):
        raise ResolveError(
            f"{suite!r} is not the name of a Debian suite",
            hint='name one as in base = "debian:bookworm"',
        )
    return suite, f"{suite}-updates", f"{suite}-security"


def configured() -> tuple[str, ...]:
    """Return the roots of ``TORCHSHIP_DEBIAN_MIRROR``, as addresses; none where it is unset.

    Raises `UsageError` for what is neither an address nor a folder that is there.
    """
    return tuple(_root(text, MIRROR) for text in os.environ.get(MIRROR, "").split())


def snapshot() -> str | None:
    """Return the address that ``TORCHSHIP_DEBIAN_SNAPSHOT`` gives; None where it is unset.

    Raises `UsageError` as `configured` does.
    """
    text = os.environ.get(SNAPSHOT, "").strip()
    return _root(text, SNAPSHOT) if text else None


def _root(text: str, variable: str) -> str:
    root = Path(text).as_uri() if text.startswith("/") else text
    try:
        folder = local_path(root)
        if folder is None:
            Address.parse(root)
    except SourceFailed as failed:
        reason = f"{text!r} {failed.reason}"
    except FetchError as error:
        reason = error.message
    else:
        if folder is None or os.path.isdir(folder):  # noqa: PTH112 (Path's raises where it may not look)
            return root.rstrip("/")
        raise UsageError(
            f"{variable} names {folder}, which is not a folder",
            hint=f"correct or unset {variable}",
        )
    raise UsageError(
        f"{variable}: {reason}",
        hint="give http:, https: or file: addresses, or absolute paths",
    )


def chosen(suite: str, roots: tuple[str, ...]) -> tuple[Entry, ...]:
    """Return the entries that the user's own roots may serve: each suite from each root."""
    options: tuple[str, ...] = ()
    if os.environ.get(TRUSTED) == "1":
        options = ("Trusted: yes",)
    elif KEYRING.exists():
        options = (f"Signed-By: {KEYRING}",)
    return tuple(
        Entry(root=root, suite=name, options=options) for root in roots for name in suites(suite)
    )


def machine(suite: str, *, etc: Path = ETC) -> tuple[Entry, ...]:
    """Return this machine's own entries for a suite and its updates, in apt's order.

    Entries of other suites are left out. A third-party repository that calls its suite by
    Debian's name is still here; apt is told to install nothing that is not Debian's.
    """
    names = suites(suite)
    return tuple(dict.fromkeys(entry for entry in _read(etc) if entry.suite in names))


def related(suite: str, *, etc: Path = ETC) -> tuple[Entry, ...]:
    """Return entries for a suite on the mirrors from which this machine has another release.

    They are guesses, and may not be served: a third party's repository, or a mirror of parts.
    """
    return tuple(
        dict.fromkeys(
            Entry(root=root, suite=name, options=entry.options)
            for entry in _read(etc)
            if _RELEASE.fullmatch(entry.suite)
            for root in _expanded(entry.root)
            for name in suites(suite)
        )
    )


def roots(suite: str, *, etc: Path = ETC) -> tuple[str, ...]:
    """Return the roots under which the pool paths of a suite's packages are looked for.

    Empty where the machine has entries of no release of Debian and the user has set none.
    """
    entries = machine(suite, etc=etc) or related(suite, etc=etc)
    given = configured() or tuple(entry.root for entry in entries)
    return tuple(dict.fromkeys(address for root in given for address in _expanded(root)))


def _expanded(root: str) -> Iterator[str]:
    # apt-transport-mirror(1): a file of roots, one a line, each with optional metadata after
    # a tab. Debian's own cloud images are set up so.
    scheme, _, rest = root.partition("://")
    if scheme != "mirror+file":
        yield root
        return
    path = Path(rest)
    if path.is_file():
        for line in path.read_text("utf-8").splitlines():
            address = line.partition("#")[0].split()
            if address:
                yield address[0].rstrip("/")


def _read(etc: Path) -> Iterator[Entry]:
    folder = etc / "sources.list.d"
    files = [etc / "sources.list", *sorted(folder.glob("*"))]
    for path in files:
        if not path.is_file() or not os.access(path, os.R_OK):
            continue
        text = path.read_text("utf-8", errors="replace")
        if path.suffix == ".list":
            for line in text.splitlines():
                yield from _one_line(line.partition("#")[0].strip())
        elif path.suffix == ".sources":
            for paragraph in Deb822.iter_paragraphs(text, use_apt_pkg=False):
                yield from _paragraph(paragraph)


def _one_line(line: str) -> Iterator[Entry]:
    found = _ONE_LINE.fullmatch(line)
    if not found:
        return
    suite, *components = found["rest"].split()
    given = dict(pair.split("=", 1) for pair in (found["options"] or "").split() if "=" in pair)
    options = (f"{name}: {given[name.lower()]}" for name in _KEPT if name.lower() in given)
    if "main" in components:
        yield from _entry(found["uri"], suite, tuple(options))


def _paragraph(paragraph: Mapping[str, str]) -> Iterator[Entry]:
    if "deb" not in paragraph.get("Types", "").split():
        return
    if paragraph.get("Enabled", "yes").strip().lower() in ("no", "false", "off", "0", "disable"):
        return
    if "main" not in paragraph.get("Components", "").split():
        return
    # An embedded key has many lines: they keep the indentation that they came with.
    options = tuple(f"{name}: {paragraph[name]}" for name in _KEPT if name in paragraph)
    for uri in paragraph.get("URIs", "").split():
        for suite in paragraph.get("Suites", "").split():
            yield from _entry(uri, suite, options)


def _entry(uri: str, suite: str, options: tuple[str, ...]) -> Iterator[Entry]:
    scheme, _, rest = uri.partition(":")
    if scheme == "copy":
        scheme = "file"
    if scheme in ("file", "mirror+file"):
        # apt takes file:/path and file:///path alike; the rest of the world, the second.
        uri = f"{scheme}://{'/' + rest.lstrip('/')}"
    if scheme in _SCHEMES:  # cdrom: and tor+http: are not for us
        yield Entry(root=uri.rstrip("/"), suite=suite, options=options)
