"""apt's settings for reaching mirrors: proxies, certificates, passwords.

A machine that reaches Debian's mirrors through a proxy of apt's own resolves packages through
it; so their files are fetched through it as well.

Source: apt-transport-http(1), apt-transport-https(1), apt_auth.conf(5), apt.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from msgspec import field

from torchship.discreet import Discreet
from torchship.project.fetch.route import Route

_SETTING = re.compile(r'(\S+) "(.*)";')
_MACHINE = re.compile(
    r"(?:(?P<scheme>[a-z0-9+.-]+)://)?(?P<host>[^/:]+|\[[^]]*\])(?::(?P<port>\d+))?(?P<path>/.*)?"
)
_DIRECT = "DIRECT"

Detect = Callable[[str, str], str]
"""Asks the user's program for the proxy to an address: ``(program, address) -> proxy``."""


class _Login(Discreet, frozen=True, kw_only=True):
    """An entry of auth.conf: for whom it is, and what it gives."""

    secrets: ClassVar[frozenset[str]] = frozenset({"password"})

    machine: str
    user: str = ""
    password: str = ""

    def fits(self, parts: SplitResult) -> bool:
        """Tell whether the entry is for an address, by the rules of apt_auth.conf(5)."""
        found = _MACHINE.fullmatch(self.machine)
        if not found or found["host"].strip("[]").lower() != parts.hostname:
            return False
        # "If protocol is not specified, the entry only matches https and tor+https."
        if (found["scheme"] or "https") != parts.scheme:
            return False
        if found["port"] and int(found["port"]) != parts.port:
            return False
        # "A machine token with a path matches if the path in the URI starts with the path".
        return parts.path.startswith(found["path"] or "")


class AptConfig(Discreet, frozen=True, kw_only=True):
    """What ``apt-config dump`` printed, by name in small letters; and what auth.conf holds."""

    secrets: ClassVar[frozenset[str]] = frozenset({"settings", "logins"})

    settings: Mapping[str, str] = field(default_factory=dict)
    logins: tuple[_Login, ...] = ()
    detect: Detect = lambda program, address: ""  # noqa: ARG005

    @classmethod
    def parse(cls, dump: str, detect: Detect) -> AptConfig:
        """Read the settings, and the files of passwords that they name and the user may read."""
        found = (_SETTING.fullmatch(line) for line in dump.splitlines())
        settings = {match[1].lower(): match[2] for match in found if match}
        logins: list[_Login] = []
        for path in _files(settings):
            try:
                logins += _logins(path.read_text("utf-8", errors="replace"))
            except OSError:  # not there, or not for this user
                continue
        return cls(settings=settings, logins=tuple(logins), detect=detect)

    def route(self, address: str) -> Route:
        """Return how apt would reach an address."""
        parts = urlsplit(address)
        host = (parts.hostname or "").lower()
        verified = all(self._find(parts, name, host) != "false" for name in _CHECKS)
        return Route(
            proxy=self._proxy(parts, host),
            authorities=tuple(_paths(self._find(parts, "cainfo", host))),
            certificate=next(_paths(self._find(parts, "sslcert", host)), None),
            key=next(_paths(self._find(parts, "sslkey", host)), None),
            verified=verified,
            login=self._login(parts),
        )

    def _find(self, parts: SplitResult, name: str, host: str) -> str:
        """Return a setting: of the host before that of all, https's own before http's."""
        schemes = ("https", "http") if parts.scheme == "https" else ("http",)
        names = (*((f"{name}::{host}",) if host else ()), name)
        keys = (f"acquire::{scheme}::{key}" for key in names for scheme in schemes)
        return next((found for key in keys if (found := self.settings.get(key))), "")

    def _proxy(self, parts: SplitResult, host: str) -> str | None:
        proxy = self._find(parts, f"proxy::{host}", "")
        program = self._find(parts, "proxy-auto-detect", "")
        program = program or self._find(parts, "proxyautodetect", "")
        if not proxy and program:
            proxy = self.detect(program, f"{parts.scheme}://{parts.netloc}/")
        proxy = proxy or self._find(parts, "proxy", "")
        if proxy == _DIRECT:
            return ""
        return self._with_login(proxy) or None

    def _with_login(self, proxy: str) -> str:
        parts = urlsplit(proxy)
        login = None if parts.username else self._login(parts)
        if login is None:
            return proxy
        words = ":".join(quote(word, safe="") for word in login)
        return urlunsplit(parts._replace(netloc=f"{words}@{parts.netloc}"))

    def _login(self, parts: SplitResult) -> tuple[str, str] | None:
        found = (login for login in self.logins if login.fits(parts))
        return next(((login.user, login.password) for login in found), None)


_CHECKS = ("verify-peer", "verify-host")


def _paths(text: str) -> Iterator[Path]:
    if text:
        yield Path(text)


def _files(settings: Mapping[str, str]) -> Iterator[Path]:
    """Yield apt's files of passwords: ``Dir::Etc::netrc``, and those of ``netrcparts``."""
    etc = Path(settings.get("dir", "/"), settings.get("dir::etc", "etc/apt"))
    if name := settings.get("dir::etc::netrc"):
        yield etc / name
    if name := settings.get("dir::etc::netrcparts"):
        yield from sorted((etc / name).glob("*.conf"))


def _logins(text: str) -> Iterator[_Login]:
    """Read the entries of a file: words in pairs, "unknown tokens will be ignored"."""
    words = iter(text.split())
    current: dict[str, str] = {}
    for word in words:
        if word == "machine":
            if current:
                yield _Login(**current)
            current = {"machine": next(words, "")}
        elif word in ("login", "password") and current:
            current["user" if word == "login" else word] = next(words, "")
    if current:
        yield _Login(**current)
