"""Fetches pinned files: local mirrors first, then each address in turn; sha256 decides.

The only module of this folder that opens connections. Addresses are ``https:``, ``http:`` or
``file:``, or absolute paths. Interrupted downloads are taken up where they stopped, in this
process or in a later one, after ``kill -9`` too. Proxies come from the environment as they
do for curl and pip (``https_proxy``, ``no_proxy``), certificates from the system,
``SSL_CERT_FILE``, ``PIP_CERT`` and ``REQUESTS_CA_BUNDLE``, user names and passwords from the
address itself or from ``~/.netrc``; no message shows them.

Source: RFC 9110, sections 10.2.3 (Retry-After), 14 (ranges) and 15.4 (redirects).
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from torchship.digest import CHUNK, Digest
from torchship.errors import FetchError, StoreError
from torchship.progress import Progress
from torchship.project.address import Address, shown
from torchship.project.answer import continues, judge, worded
from torchship.project.downloads import Downloads
from torchship.project.mirrors import Mirrors
from torchship.project.part import Cancelled, Part, SourceFailed, local_path, regular

if TYPE_CHECKING:
    import urllib3

THREADS = 8
"""Files fetched at a time."""

_PIECE = 1 << 16  # bytes: small enough that a slow connection shows progress
_TRIES = 5  # of one address, as long as the fault may pass
_REDIRECTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A file that is wanted: ``size`` in bytes, ``sources`` in the order to be tried."""

    filename: str
    digest: Digest
    size: int
    sources: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One source that did not give a file. ``gone``: it answered that it has no such file."""

    source: str
    reason: str
    gone: bool = False

    def __str__(self) -> str:
        return f"{shown(self.source)}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What `attempt` has got, and why it has not got the rest."""

    files: Mapping[Digest, Path]
    failures: Mapping[Digest, tuple[Failure, ...]]


def fetch(
    wanted: Collection[Wanted], *, downloads: Path, mirrors: Mirrors, progress: Progress
) -> Mapping[Digest, Path]:
    """Return a verified local file for each digest that is wanted.

    Raises one `FetchError` that lists every file that could not be had and what was tried;
    `StoreError` where ``downloads`` is full or cannot be written.
    """
    outcome = attempt(wanted, downloads=downloads, mirrors=mirrors, progress=progress)
    if outcome.failures:
        names = {one.digest: one.filename for one in wanted}
        raise FetchError(
            told({names[digest]: failed for digest, failed in outcome.failures.items()}),
            hint="check the network, or name local folders that hold the files in "
            "TORCHSHIP_MIRRORS; what was downloaded is kept",
        )
    return outcome.files


def attempt(
    wanted: Collection[Wanted],
    *,
    downloads: Path,
    mirrors: Mirrors,
    progress: Progress,
    certificates: Collection[Path] = (),
) -> Outcome:
    """Fetch what can be had, as `fetch` does, and say of the rest what was tried.

    ``certificates`` are further bundles of authorities to trust, in PEM.
    """
    each = {one.digest: one for one in wanted}
    fetcher = _Fetcher(Downloads(downloads), mirrors, progress, certificates)
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


def length(source: str) -> int:
    """Return the size in bytes that a source states, without downloading the file.

    Raises `FetchError` where it does not answer, or does not say.
    """
    try:
        path = local_path(source)
        if path is not None:
            return regular(path).st_size
        size = _Client().length(source)
    except SourceFailed as failed:
        raise FetchError(f"{shown(source)}: {failed.reason}") from failed
    if size is None:
        raise FetchError(f"{shown(source)} does not state the size of the file")
    return size


def exists(source: str) -> bool:
    """Return whether a source has the file; raise `FetchError` where that cannot be told."""
    try:
        path = local_path(source)
        if path is not None:
            return path.exists()
        _Client().length(source)
    except SourceFailed as failed:
        if failed.gone:
            return False
        raise FetchError(f"{shown(source)}: {failed.reason}") from failed
    return True


def told(failures: Mapping[str, tuple[Failure, ...]]) -> str:
    """Return one message about files that could not be had, by name: what was tried."""
    lines = []
    for name, tried in sorted(failures.items()):
        reasons = "; ".join(map(str, tried)) or "no source is known"
        lines.append(f"{name} ({reasons})")
    return f"could not fetch {', '.join(lines)}"


class _Fetcher:
    """Gets one file after another into the downloads; its threads share it."""

    def __init__(
        self,
        downloads: Downloads,
        mirrors: Mirrors,
        progress: Progress,
        certificates: Collection[Path],
    ) -> None:
        self.cancelled = threading.Event()
        self._downloads = downloads
        self._mirrors = mirrors
        self._progress = progress
        self._client = _Client(certificates)
        self._unreachable: dict[str, SourceFailed] = {}  # by host

    def get(self, wanted: Wanted) -> Path | tuple[Failure, ...]:
        with _storing(self._downloads.place(wanted.digest, wanted.filename), wanted.size):
            return self._get(wanted)

    def _get(self, wanted: Wanted) -> Path | tuple[Failure, ...]:
        found = self._downloads.find(wanted.digest, wanted.filename, wanted.size)
        if found is not None:
            return found
        near = self._mirrors.find(wanted.digest, filename=wanted.filename, size=wanted.size)
        sources = (*((str(near),) if near else ()), *wanted.sources)
        if not sources:
            return ()
        failures = []
        with self._downloads.partial(wanted.digest, self._check) as stream:
            found = self._downloads.find(wanted.digest, wanted.filename, wanted.size)
            if found is not None:  # another process was faster
                self._downloads.partial_path(wanted.digest).unlink(missing_ok=True)
                return found
            label = wanted.label or wanted.filename
            part = Part(
                stream,
                digest=wanted.digest,
                size=wanted.size,
                task=self._progress.task(label, total=wanted.size),
                check=self._check,
            )
            for source in sources:
                try:
                    return self._from(source, part, wanted)
                except SourceFailed as failed:
                    failures.append(Failure(source=source, reason=failed.reason, gone=failed.gone))
            if part.done == 0:
                self._downloads.partial_path(wanted.digest).unlink(missing_ok=True)
        return tuple(failures)

    def _check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled

    def _from(self, source: str, part: Part, wanted: Wanted) -> Path:
        path = local_path(source)
        if path is not None:
            linked = self._linked(path, wanted)
            if linked is not None:
                self._downloads.partial_path(wanted.digest).unlink(missing_ok=True)
                return linked
        if part.complete and not part.good:
            part.restart()  # left by a process that wrote something else
        inherited = part.done
        self._fill(source, path, part)
        if not part.good and inherited:
            # The beginning came from elsewhere, or was not all written before a power cut.
            part.restart()
            self._fill(source, path, part)
        if not part.good:
            part.restart()
            raise SourceFailed("the file there has another sha256")
        part.finish()
        partial = self._downloads.partial_path(wanted.digest)
        return self._downloads.adopt(partial, wanted.digest, wanted.filename)

    def _linked(self, path: Path, wanted: Wanted) -> Path | None:
        """Take a local file without copying it, where the filesystem allows.

        Its owner may write to it later: the stamp of `Downloads` shows that, and the file
        is then hashed again and, if it has changed, thrown away.
        """
        if regular(path).st_size != wanted.size:
            raise SourceFailed(f"the file has {path.stat().st_size} bytes, not {wanted.size}")
        temporary = self._downloads.partial_path(wanted.digest).with_suffix(f".{os.getpid()}")
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(path.resolve())
        except OSError:
            return None  # another filesystem, or another owner: the bytes are copied
        try:
            if Digest.of_file(temporary) != wanted.digest:
                raise SourceFailed("the file has another sha256")
            return self._downloads.adopt(temporary, wanted.digest, wanted.filename)
        except PermissionError:
            return None
        finally:
            temporary.unlink(missing_ok=True)

    def _fill(self, source: str, path: Path | None, part: Part) -> None:
        if path is not None:
            part.copy(path)
            return
        tries, etag, host = 0, "", shown(source).split("/")[2]
        while not part.complete:
            if host in self._unreachable:  # found out with another file: do not wait again
                raise self._unreachable[host]
            before = part.done
            try:
                etag = self._client.download(source, part, etag)
                if not part.complete:
                    raise SourceFailed(f"ended after {part.done} bytes of {part.size}", retry=0.0)
            except SourceFailed as failed:
                tries = 1 if part.done - before >= CHUNK else tries + 1
                if failed.retry is None or tries >= _TRIES:
                    if failed.unreachable:
                        self._unreachable[host] = failed
                    raise
                if self.cancelled.wait(max(failed.retry, 0.2 * 2 ** (tries - 1))):
                    raise Cancelled from failed


class _Client:
    """Speaks HTTP; one pool of connections for each proxy, shared by threads."""

    def __init__(self, certificates: Collection[Path] = ()) -> None:
        self._certificates = certificates
        self._lock = threading.Lock()
        self._pools: dict[str, urllib3.PoolManager] = {}

    def download(self, source: str, part: Part, etag: str) -> str:
        """Write what is missing of a part; return the answer's strong ETag, or nothing."""
        headers = {}
        if part.done:
            headers["Range"] = f"bytes={part.done}-"
            if etag:
                headers["If-Range"] = etag
        with self._answer("GET", source, headers) as response:
            if response.status == 416 or not continues(response, part):
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

    def length(self, source: str) -> int | None:
        """Ask for the size of a file; None where the server does not state it."""
        for tries in range(1, _TRIES + 1):
            try:
                try:
                    return self._stated("HEAD", source)
                except SourceFailed as failed:
                    if failed.gone or failed.retry is not None:
                        raise
                    return self._stated("GET", source)  # a server may refuse HEAD alone
            except SourceFailed as failed:
                if failed.retry is None or tries == _TRIES:
                    raise
                time.sleep(max(failed.retry, 0.2 * 2 ** (tries - 1)))
        raise AssertionError("the last try returns or raises")

    def _stated(self, method: str, source: str) -> int | None:
        with self._answer(method, source, {}) as response:
            stated = response.headers.get("Content-Length", "")
        return int(stated) if stated.isdecimal() else None

    @contextmanager
    def _answer(
        self, method: str, source: str, headers: Mapping[str, str]
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a request, follow its redirects, and judge the status of the answer."""
        import urllib3

        response: urllib3.BaseHTTPResponse | None = None
        try:
            address = Address.parse(source)
            for _ in range(_REDIRECTS):
                response = self._pool(address.url).request(
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
                    judge(response)
                    yield response
                    return
                response.close()
                address = address.redirected(location)
            raise SourceFailed("is redirected too many times")
        except FetchError as error:
            raise SourceFailed(error.message) from error
        except urllib3.exceptions.HTTPError as error:
            raise worded(error) from error
        finally:
            if response is not None:
                response.close()

    def _pool(self, url: str) -> urllib3.PoolManager:
        from urllib.request import getproxies, proxy_bypass

        parts = urlsplit(url)
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
        if proxy_bypass(parts.netloc):
            proxy = ""
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = _pool(proxy, self._certificates)
            return self._pools[proxy]


def _pool(proxy: str, certificates: Collection[Path]) -> urllib3.PoolManager:
    import ssl

    import urllib3

    context = ssl.create_default_context()  # which reads SSL_CERT_FILE and SSL_CERT_DIR
    named = (os.environ.get(name) for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE"))
    for bundle in (*certificates, *(Path(text) for text in named if text)):
        try:
            context.load_verify_locations(
                **({"capath": str(bundle)} if bundle.is_dir() else {"cafile": str(bundle)})
            )
        except OSError as error:  # ssl.SSLError is one
            raise SourceFailed(f"the certificates in {bundle} cannot be read") from error
    timeout = urllib3.Timeout(connect=10, read=30)
    if not proxy:
        return urllib3.PoolManager(maxsize=THREADS, ssl_context=context, timeout=timeout)
    address = Address.parse(proxy if "://" in proxy else f"http://{proxy}")
    headers = {f"Proxy-{name}": value for name, value in address.headers.items()}
    return urllib3.ProxyManager(
        address.url, proxy_headers=headers, maxsize=THREADS, ssl_context=context, timeout=timeout
    )


@contextmanager
def _storing(path: Path, size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"no space is left on the disk for {path}, which needs {size} bytes",
                hint="free some space, or set TORCHSHIP_HOME to a folder on another disk; "
                "what was downloaded is kept",
            ) from error
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}",
            hint="make the folder writable, or set TORCHSHIP_HOME to another one",
        ) from error
