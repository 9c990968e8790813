"""The user's pip settings: which index, which folders, which certificates.

A machine that reaches packages through a company's mirror says so to pip; whoever can `pip
install` there must be able to `torchship lock`. Read as pip reads them (pip's user guide,
"Configuration"), without pip, and told to uv by its environment variables.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from torchship.errors import UsageError
from torchship.project.fetch.route import Route

_SECTIONS = ("global", "download", "install")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


class PipSettings(Struct, frozen=True, kw_only=True):
    """What pip would use. Addresses may hold credentials: never show them."""

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    prerelease: bool = False
    cert: str | None = None
    client_cert: str | None = None
    trusted_hosts: tuple[str, ...] = ()
    proxy: str | None = None
    timeout: str | None = None

    def route(self, address: str) -> Route:
        """Return how pip would reach an address: its proxy is for all, whatever theirs is."""
        parts = urlsplit(address)
        trusted = {parts.hostname, parts.netloc.rpartition("@")[2]}
        return Route(
            proxy=self.proxy,
            authorities=(Path(self.cert),) if self.cert else (),
            certificate=Path(self.client_cert) if self.client_cert else None,
            verified=trusted.isdisjoint(self.trusted_hosts),
        )


def read(environ: Mapping[str, str] | None = None) -> PipSettings:
    """Read pip's settings: its files, a later one over an earlier, then ``PIP_*`` over all.

    Raises `UsageError` for a file that pip could not read either.
    """
    environ = os.environ if environ is None else environ
    found: dict[str, str] = {}
    for section in _SECTIONS:
        for path in _files(environ):
            found.update(_section(path, section))
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            found[_key(name[4:])] = value
    return PipSettings(
        index_url=found.get("index-url", found.get("pypi-url")),
        extra_index_urls=tuple(found.get("extra-index-url", "").split()),
        find_links=tuple(_home(link) for link in found.get("find-links", "").split()),
        no_index=_truth(found.get("no-index", "")),
        prerelease=_truth(found.get("pre", "")),
        cert=found.get("cert"),
        client_cert=found.get("client-cert"),
        trusted_hosts=tuple(found.get("trusted-host", "").split()),
        proxy=found.get("proxy"),
        timeout=found.get("timeout", found.get("default-timeout")),
    )


def for_uv(settings: PipSettings, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment in which uv uses the same indexes; the user's own UV_* win.

    pip treats all indexes alike and takes the best version of any, which uv does only when
    told to (``unsafe-best-match``).
    """
    wanted = {
        "UV_DEFAULT_INDEX": settings.index_url or "",
        "UV_INDEX": " ".join(settings.extra_index_urls),
        "UV_FIND_LINKS": ",".join(_place(link) for link in settings.find_links),
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": " ".join(settings.trusted_hosts),
        "UV_HTTP_TIMEOUT": settings.timeout or "",
        "SSL_CERT_FILE": settings.cert or "",
        "SSL_CLIENT_CERT": settings.client_cert or "",
    }
    # uv's older names for the same settings: where the user has one, ours must stay away.
    older = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
    result = dict(environ)
    for name, value in wanted.items():
        if value and not environ.get(name) and not environ.get(older.get(name, name)):
            result[name] = value
    if settings.proxy:  # which for pip stands above the environment's
        result.update(dict.fromkeys(_PROXIES, settings.proxy))
    return result


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield pip's configuration files, the weakest first."""
    chosen = environ.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return
    home = Path(environ.get("HOME") or Path.home())
    for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep):
        yield Path(folder) / "pip" / "pip.conf"
    if sys.platform == "darwin":
        yield Path("/Library/Application Support/pip/pip.conf")
    yield Path("/etc/pip.conf")
    if not (chosen and Path(chosen).exists()):
        yield home / ".pip" / "pip.conf"
        yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
        if sys.platform == "darwin":
            yield home / "Library" / "Application Support" / "pip" / "pip.conf"
    yield Path(environ.get("VIRTUAL_ENV") or sys.prefix) / "pip.conf"
    if chosen:
        yield Path(chosen)


def _section(path: Path, section: str) -> Mapping[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"pip's settings in {path} cannot be read: {reason}") from None
    if not parser.has_section(section):
        return {}
    return {_key(name): value for name, value in parser.items(section)}


def _key(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")


def _truth(text: str) -> bool:
    return text.strip().lower() in ("y", "yes", "t", "true", "on", "1")


def _home(link: str) -> str:
    """Write a leading ``~`` out, as pip does for folders to find links in."""
    return str(Path(link).expanduser()) if link.startswith("~") else link


def _place(link: str) -> str:
    """Make a folder absolute: uv runs in the project's directory, pip in the user's."""
    return link if "://" in link or link.startswith("file:") else str(Path(link).absolute())
