"""Addresses of files: who is asked, with which credentials, and what may be shown of them."""

from __future__ import annotations

import base64
import netrc
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from msgspec import field
from msgspec.structs import replace

from torchship.discreet import Discreet
from torchship.errors import FetchError

Login = Callable[[str], tuple[str, str] | None]
"""Gives the user and password that settings have for an address."""


class Address(Discreet, frozen=True, kw_only=True):
    """An HTTP address without its credentials, and the headers that they make."""

    secrets: ClassVar[frozenset[str]] = frozenset({"headers"})

    url: str
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def parse(cls, text: str, *, login: Login = lambda _: None) -> Address:
        """Take the credentials out of an address; else ask ``login``, then the netrc file."""
        try:
            parts = urlsplit(text)
            port = f":{parts.port}" if parts.port is not None else ""
        except ValueError as error:
            raise FetchError(f"{shown(text)} is not an address: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FetchError(f"{shown(text)} is not an http: or https: address")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        url = urlunsplit((parts.scheme, host + port, parts.path, parts.query, ""))
        known = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        return cls(url=url)._as(known or login(url) or _from_netrc(parts.hostname))

    def _as(self, login: tuple[str, str] | None) -> Address:
        if login is None:
            return self
        token = base64.b64encode(":".join(login).encode()).decode("ascii")
        return replace(self, headers=MappingProxyType({"Authorization": f"Basic {token}"}))

    def redirected(self, location: str, *, login: Login = lambda _: None) -> Address:
        """Follow a redirect. Credentials stay with the host that they were meant for.

        ``login`` is asked for those of another host.

        Raises `FetchError` where an encrypted connection would become a plain one, or the
        redirect leads away from HTTP.
        """
        try:
            target = urljoin(self.url, location)
            old, new = urlsplit(self.url), urlsplit(target)
        except ValueError as error:
            raise FetchError(f"is redirected to what is no address: {error}") from error
        if new.scheme not in ("http", "https") or (old.scheme, new.scheme) == ("https", "http"):
            raise FetchError(f"is redirected to {shown(target)}, which is not followed")
        # What a server writes before an @ is its own invention: never sent anywhere.
        bare = urlunsplit(new._replace(netloc=new.netloc.rpartition("@")[2], fragment=""))
        same = (old.scheme, old.netloc) == (new.scheme, new.netloc.rpartition("@")[2])
        return (
            Address(url=bare, headers=self.headers) if same else Address(url=bare)._as(login(bare))
        )


def shown(address: str) -> str:
    """Return an address for people: no user, password, query or fragment."""
    if address.startswith("/"):
        return address
    try:
        parts = urlsplit(address)
    except ValueError:
        return "an address that is none"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def host_of(address: str) -> str:
    """Return scheme, host and port of an address, as a key for what is known of the host."""
    return "/".join(shown(address).split("/")[:3])


def _from_netrc(host: str) -> tuple[str, str] | None:
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        found = netrc.netrc(str(path)).hosts.get(host)
    except (OSError, netrc.NetrcParseError):
        return None  # no file, or one that curl and pip would not read either
    return (found[0], found[2] or "") if found else None
