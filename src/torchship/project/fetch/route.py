"""How an address is reached: through which proxy, trusting whom, as whom.

The user's settings say it, each of its own kind of file: pip's of wheels (`pip`), apt's of
Debian packages (`aptconfig`), the environment of everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from torchship.discreet import Discreet


class Route(Discreet, frozen=True, kw_only=True):
    """What settings say of one address. It may hold passwords: never show it.

    ``proxy`` is an address, empty for none, None where the environment decides;
    ``authorities`` are bundles in PEM, trusted besides the system's; ``certificate`` and
    ``key`` (None: in the same file) are shown to a server that asks; ``verified`` is False
    where the user has said that the server's certificate does not count; ``login`` is the
    user and the password for an address that has none itself.
    """

    secrets: ClassVar[frozenset[str]] = frozenset({"proxy", "login"})

    proxy: str | None = None
    authorities: tuple[Path, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    verified: bool = True
    login: tuple[str, str] | None = None


Routes = Callable[[str], Route]
"""Gives the route to an ``http:`` or ``https:`` address."""


def plain(address: str) -> Route:  # noqa: ARG001 (one route leads everywhere)
    """Return the route of those that have no settings: the environment's."""
    return Route()
