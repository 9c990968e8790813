"""Fetches pinned files: local mirrors first, then each address in turn; sha256 decides.

The only module of this folder that opens connections. Addresses are ``https:``, ``http:`` or
``file:``, or absolute paths. Interrupted downloads are taken up where they stopped, in this
process or in a later one, after ``kill -9`` too. A file's `Route` says how it is reached.
Where that leaves it open, proxies come from the environment as they do for curl and pip
(``https_proxy``, ``no_proxy``), certificates from the system, ``SSL_CERT_FILE``, ``PIP_CERT``
and ``REQUESTS_CA_BUNDLE``, user names and passwords from the address itself or from
``~/.netrc``; no message shows them.

Source: RFC 9110, sections 10.2.3 (Retry-After), 14 (ranges) and 15.4 (redirects).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from torchship.digest import Digest
from torchship.errors import FetchError
from torchship.progress import Progress
from torchship.project.fetch.address import Address, host_of, shown
from torchship.project.fetch.answer import continues, judge
from torchship.project.fetch.downloads import Downloads
from torchship.project.fetch.fetcher import TRIES, Failure, Fetcher, Wanted, pause
from torchship.project.fetch.mirrors import Mirrors
from torchship.project.fetch.part import Cancelled, Part, SourceFailed, local_path, regular
from torchship.project.fetch.route import Route, Routes, plain

__all__ = ["Failure", "Outcome", "Wanted", "attempt", "exists", "length", "local", "told"]

if TYPE_CHECKING:
    import ssl

    import urllib3

THREADS = 8
"""Files fetched at a time."""

_PIECE = 1 << 16  # bytes: small enough that a slow connection shows progress
_REDIRECTS = 10


class Outcome(Struct, frozen=True, kw_only=True):
    """What `attempt` has got, and why it has not got the rest."""

    files: Mapping[Digest, Path]
    failures: Mapping[Digest, tuple[Failure, ...]]


def attempt(
    wanted: Collection[Wanted],
    *,
    downloads: Path,
    mirrors: Mirrors,
    progress: Progress,
) -> Outcome:
    """Return a verified local file for each digest that can be had, and why the others cannot.

    Raises `StoreError` where ``downloads`` is full or cannot be written.
    """
    each = {one.digest: one for one in wanted}
    client = _Client()
    fetcher = Fetcher(Downloads(downloads), mirrors, progress, client.download)
    files: dict[Digest, Path] = {}
    failures: dict[Digest, tuple[Failure, ...]] = {}
    with ThreadPoolExecutor(THREADS, thread_name_prefix="fetch") as pool:
        futures = {pool.submit(fetcher.get, one): digest for digest, one in each.items()}
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # A full disk or Ctrl-C: nobody begins anew, and those at work stop at once.
            if not all(future.done() for future in futures):
                fetcher.cancelled.set()
                pool.shutdown(wait=False, cancel_futures=True)
    errors = [future.exception() for future in futures if not future.cancelled()]
    for error in errors:
        if error is not None and not isinstance(error, Cancelled):
            raise error
    for future, digest in futures.items():
        result = future.result()
        if isinstance(result, Path):
            files[digest] = result
        else:
            failures[digest] = result
    return Outcome(files=files, failures=failures)


def local(
    wanted: Collection[Wanted], *, downloads: Path, mirrors: Mirrors, progress: Progress
) -> Mapping[Digest, Path]:
    """Return those files that are here already or in a local mirror; no address is tried."""
    bare = [
        Wanted(filename=w.filename, digest=w.digest, size=w.size, label=w.label) for w in wanted
    ]
    return attempt(bare, downloads=downloads, mirrors=mirrors, progress=progress).files


def length(source: str, *, routes: Routes = plain) -> int:
    """Return the size in bytes that a source states, without downloading the file.

    Raises `FetchError` where it does not answer, or does not say.
    """
    try:
        path = local_path(source)
        if path is not None:
            return regular(path).st_size
        size = _Client().length(source, routes)
    except SourceFailed as failed:
        raise FetchError(f"{shown(source)}: {failed.reason}") from failed
    if size is None:
        raise FetchError(f"{shown(source)} does not state the size of the file")
    return size


def exists(source: str, *, routes: Routes = plain) -> bool:
    """Return whether a source has the file; raise `FetchError` where that cannot be told."""
    try:
        path = local_path(source)
        if path is not None:
            return path.exists()
        _Client().length(source, routes)
    except SourceFailed as failed:
        if failed.gone:
            return False
        raise FetchError(f"{shown(source)}: {failed.reason}") from failed
    return True


_TOLD = 3  # files that one message names; the rest are counted


def told(failures: Mapping[str, tuple[Failure, ...]]) -> str:
    """Return one sentence about files that could not be had: which, and what each source said."""
    names = sorted(failures)
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    reasons = dict.fromkeys(
        f"{host_of(failure.source) if '://' in failure.source else failure.source}: "
        f"{failure.reason}"
        for name in names
        for failure in failures[name]
    )
    why = "; ".join(reasons) or "no source has one with the lock's sha256"
    return f"could not fetch {', '.join(names[:_TOLD])}{more} ({why})"


class _Client:
    """Speaks HTTP; one pool of connections for each route, shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: dict[Route, urllib3.PoolManager] = {}

    def download(self, source: str, routes: Routes, part: Part, etag: str) -> str:
        """Write what is missing of a part; return the answer's strong ETag, or nothing."""
        headers = {}
        if part.done:
            headers["Range"] = f"bytes={part.done}-"
            if etag:
                headers["If-Range"] = etag
        with self._answer("GET", source, routes, headers) as response:
            if response.status == 416 or not continues(response.status, response.headers, part):
                part.restart()
            if response.status == 416:
                raise SourceFailed("refuses to continue the file", retry=0.0)
            stated = response.headers.get("Content-Length", "")
            if stated.isdecimal() and int(stated) != part.size - part.done:
                whole = int(stated) + part.done
                raise SourceFailed(f"the file there has {whole} bytes, not {part.size}")
            for piece in response.stream(_PIECE, decode_content=False):
                part.write(piece)
            found = response.headers.get("ETag", "")
        return "" if found.startswith("W/") else found

    def length(self, source: str, routes: Routes) -> int | None:
        """Ask for the size of a file; None where the server does not state it."""
        for tries in range(1, TRIES + 1):
            try:
                try:
                    return self._stated("HEAD", source, routes)
                except SourceFailed as failed:
                    if failed.gone or failed.retry is not None:
                        raise
                    return self._stated("GET", source, routes)  # a server may refuse HEAD alone
            except SourceFailed as failed:
                if failed.retry is None or tries == TRIES:
                    raise
                time.sleep(pause(tries, failed.retry))
        raise AssertionError("the last try returns or raises")

    def _stated(self, method: str, source: str, routes: Routes) -> int | None:
        with self._answer(method, source, routes, {}) as response:
            stated = response.headers.get("Content-Length", "")
        return int(stated) if stated.isdecimal() else None

    @contextmanager
    def _answer(
        self, method: str, source: str, routes: Routes, headers: Mapping[str, str]
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a request, follow its redirects, and judge the status of the answer."""
        import urllib3

        response: urllib3.BaseHTTPResponse | None = None
        try:
            address = Address.parse(source, login=lambda url: routes(url).login)
            for _ in range(_REDIRECTS):
                response = self._pool(address.url, routes(address.url)).request(
                    method,
                    address.url,
                    # identity: what is hashed is the file, not a form compressed on the way.
                    headers={"Accept-Encoding": "identity", **headers, **address.headers},
                    redirect=False,
                    retries=False,
                    preload_content=False,
                )
                location = response.headers.get("Location")
                if response.status not in (301, 302, 303, 307, 308) or not location:
                    judge(response.status, response.reason, response.headers)
                    yield response
                    return
                response.close()
                address = address.redirected(location, login=lambda url: routes(url).login)
            raise SourceFailed("is redirected too many times")
        except FetchError as error:
            raise SourceFailed(error.message) from error
        except urllib3.exceptions.HTTPError as error:
            raise _worded(error) from error
        finally:
            if response is not None:
                response.close()

    def _pool(self, url: str, route: Route) -> urllib3.PoolManager:
        from urllib.request import getproxies, proxy_bypass

        parts = urlsplit(url)
        proxy = route.proxy
        if proxy is None:
            proxies = getproxies()
            proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
        if proxy_bypass(parts.netloc):
            proxy = ""
        key = replace(route, proxy=proxy, login=None)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = _pool(proxy, key)
            return self._pools[key]


def _pool(proxy: str, route: Route) -> urllib3.PoolManager:
    import urllib3

    context = _context(route)
    timeout = urllib3.Timeout(connect=10, read=30)
    if not proxy:
        return urllib3.PoolManager(maxsize=THREADS, ssl_context=context, timeout=timeout)
    try:
        address = Address.parse(proxy if "://" in proxy else f"http://{proxy}")
    except FetchError as error:
        raise SourceFailed(f"the proxy {error.message}", unreachable=True) from error
    headers = {f"Proxy-{name}": value for name, value in address.headers.items()}
    return urllib3.ProxyManager(
        address.url, proxy_headers=headers, maxsize=THREADS, ssl_context=context, timeout=timeout
    )


def _context(route: Route) -> ssl.SSLContext:
    import ssl

    import urllib3

    context = ssl.create_default_context()  # which reads SSL_CERT_FILE and SSL_CERT_DIR
    named = (os.environ.get(name) for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE"))
    for bundle in (*route.authorities, *(Path(text) for text in named if text)):
        try:
            context.load_verify_locations(
                **({"capath": str(bundle)} if bundle.is_dir() else {"cafile": str(bundle)})
            )
        except OSError as error:  # ssl.SSLError is one
            raise SourceFailed(f"the certificates in {bundle} cannot be read") from error
    if route.certificate is not None:
        try:
            # A key that asks for a password would ask on the terminal, in the midst of it all.
            context.load_cert_chain(route.certificate, route.key, password=lambda: b"")
        except OSError as error:
            raise SourceFailed(f"the certificate {route.certificate} cannot be used") from error
    if not route.verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # The user has said so; and the file itself is checked by its sha256.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return context


def _worded(error: urllib3.exceptions.HTTPError) -> SourceFailed:
    """Say in plain words what went wrong below HTTP."""
    from urllib3 import exceptions

    # The texts of urllib3 show addresses whole; and what is wrong with a name or with a
    # certificate does not pass in a second.
    if isinstance(error, exceptions.NameResolutionError):
        return SourceFailed("the name of the host is not known here", unreachable=True)
    if isinstance(error, exceptions.SSLError):
        return SourceFailed("its certificate is not trusted, or TLS fails", unreachable=True)
    if isinstance(error, exceptions.ProxyError):
        return SourceFailed("the proxy refuses or fails", unreachable=True)
    if isinstance(error, exceptions.NewConnectionError):
        return SourceFailed("no connection", retry=0.0, unreachable=True)
    if isinstance(error, exceptions.ConnectTimeoutError):
        return SourceFailed("does not answer in time", unreachable=True)
    if isinstance(error, exceptions.ReadTimeoutError):
        return SourceFailed("stopped sending", retry=0.0)
    if isinstance(error, exceptions.ProtocolError):
        return SourceFailed("hung up", retry=0.0)
    return SourceFailed(f"fails ({type(error).__name__})")
