"""Image references: ``host[:port]/path:tag@sha256:...``, parsed once at the edge.

Sources: OCI distribution-spec v1.1, spec.md ("Pulling manifests": ``<name>`` and
``<reference>``) for the grammar; Docker's own tools for the defaults (``docker.io``,
``library/``, ``latest``), which everybody types and nobody wrote into a specification.
"""

from __future__ import annotations

import ipaddress
import re

from msgspec import Struct

from torchship.digest import Digest
from torchship.errors import InvalidDigest, InvalidReference

HUB = "docker.io"
OFFICIAL = "library/"
LATEST = "latest"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(
    rf"(?P<name>{_LABEL}(?:\.{_LABEL})*|\[(?P<v6>[0-9a-fA-F:.]+)\])(?::(?P<port>[0-9]{{1,5}}))?"
)
_HEX = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(rf"sha256:{_HEX.pattern}")

_HUB_PAGE = re.compile(r"(?:https?://)?hub\.docker\.com/(?:r/|_/|repository/docker/)?")

_LONGEST = 255  # of host and path together: "clients and registries MAY limit" to that


class Reference(Struct, frozen=True, kw_only=True, order=True):
    """Names an image in a registry. ``repository`` is the path below the host.

    A reference without a digest has a tag; one with a digest may have none.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference as people type it; raise `InvalidReference` with what is wrong.

        ``mnist`` is ``docker.io/library/mnist:latest``, as it is for Docker.
        """
        if not text:
            raise InvalidReference("an image reference cannot be empty")
        _check_address(text)
        if "://" in text:
            raise _invalid(text, "it starts with a scheme", f"write {text.partition('://')[2]}")
        if _DIGEST.fullmatch(text):
            # By the grammar, it is the tag of a repository sha256 on Docker Hub: nobody means that.
            raise _invalid(text, "it is a digest alone", f"name its repository: NAME@{text}")
        named, at, encoded = text.partition("@")
        digest = _digest(text, encoded) if at else None
        # A colon after the last slash begins the tag; one before it, a port.
        head, slash, last = named.rpartition("/")
        last, colon, tag = last.partition(":")
        if colon and not TAG.fullmatch(tag):
            raise _invalid(
                text,
                f"{tag!r} is not a tag",
                "a tag has up to 128 letters, digits, '_', '.' and '-', "
                "and starts with none of the last two",
            )
        if not slash and colon and _is_address(last, tag):
            # By the grammar, it is a tag of a repository on Docker Hub.
            raise _invalid(text, "it names a registry alone", f"write {last}:{tag}/NAME")
        registry, repository = _split(head + slash + last)
        check_registry(text, registry)
        _check_repository(text, registry, repository)
        return cls(
            registry=registry,
            repository=repository,
            tag=tag if colon else None if digest else LATEST,
            digest=digest,
        )

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest: what a push is for."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """The reference as people write it: ``mnist:v0.1``, without Docker Hub's defaults."""
        name = self.name
        if self.registry == HUB:
            name = self.repository
            short = name.removeprefix(OFFICIAL)
            # ``library/a/b`` would come back as the repository ``a/b``, an address not at all.
            name = name if "/" in short or _is_address(short, self.tag or "") else short
        return name + self._suffix()

    def with_tag(self, tag: str) -> Reference:
        """Return the same repository under another tag, without a digest."""
        return Reference.parse(f"{self.name}:{tag}")

    def with_digest(self, digest: Digest) -> Reference:
        """Return the same repository, pinned to one manifest."""
        return Reference(registry=self.registry, repository=self.repository, digest=digest)

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return f"{tag}@{self.digest}" if self.digest is not None else tag

    def __str__(self) -> str:
        return self.name + self._suffix()


def _is_address(name: str, tag: str) -> bool:
    """Tell whether ``name:tag`` is this machine, or a number of IP, and a port."""
    if not tag.isdecimal():
        return False
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return name == "localhost"
    return True


def _check_address(text: str) -> None:
    """Raise `InvalidReference` for the address that a browser shows for an image of Docker Hub."""
    match = _HUB_PAGE.match(text)
    if match:
        name = _REPOSITORY.match(text, match.end())
        written = f"write {name[0].removesuffix('/tags')}" if name else None
        raise _invalid(text, "it is the address of a page about an image", written)


def names_registry(text: str) -> bool:
    """Tell whether a reference, as it was typed, says of which registry it is.

    As for Docker, a first part with a dot, a colon or a capital is a host. Without one it is
    Docker Hub's, or most likely a name of the store alone.
    """
    first, slash, _ = text.partition("/")
    host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    return bool(slash) and host


def _split(name: str) -> tuple[str, str]:
    """Tell host from path, and fill in Docker Hub's defaults."""
    first, _, rest = name.partition("/")
    registry, repository = (first, rest) if names_registry(name) else (HUB, name)
    if registry == "index.docker.io":
        registry = HUB
    if registry == HUB and "/" not in repository:
        repository = OFFICIAL + repository
    return registry, repository


def check_registry(text: str, registry: str) -> None:
    """Raise `InvalidReference` for ``text`` where its ``registry`` is not ``host[:port]``."""
    match = _HOST.fullmatch(registry)
    if not match:
        raise _invalid(text, f"{registry!r} is not a host name")
    if match["v6"] is not None:
        try:
            ipaddress.IPv6Address(match["v6"])
        except ValueError:
            raise _invalid(text, f"{match['v6']!r} is not an IPv6 address") from None
    if match["port"] is not None and not 0 < int(match["port"]) < 1 << 16:
        raise _invalid(text, f"{match['port']} is not a port")


def _check_repository(text: str, registry: str, repository: str) -> None:
    path = repository.removeprefix(OFFICIAL) if registry == HUB else repository
    if not path:
        raise _invalid(text, "it names no repository")
    if path != path.lower():
        name = path if registry == HUB else f"{registry}/{path}"
        raise _invalid(text, "a repository has no capital letters", f"write {name.lower()}")
    if not _REPOSITORY.fullmatch(repository):
        raise _invalid(
            text,
            f"{path!r} is not a repository",
            "its parts are lower-case letters and digits, joined by '.', '_', '__', '-' or '/'",
        )
    if len(registry) + 1 + len(repository) > _LONGEST:
        raise _invalid(text, f"its name is longer than {_LONGEST} characters")
    if registry == HUB and _HEX.fullmatch(path):
        raise _invalid(text, "64 hexadecimal digits are a digest", f"write sha256:{path}")


def _digest(text: str, encoded: str) -> Digest:
    try:
        return Digest.parse(encoded)
    except InvalidDigest as error:
        raise _invalid(text, error.message) from None


def _invalid(text: str, fault: str, hint: str | None = None) -> InvalidReference:
    shown = text if len(text) <= 2 * _LONGEST else text[: 2 * _LONGEST] + "..."
    return InvalidReference(f"{shown!r} is not an image reference: {fault}", hint=hint)
