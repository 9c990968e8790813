"""Gets files into the downloads: from a local mirror, or from the first source that has it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from torchship.digest import CHUNK, Digest
from torchship.errors import StoreError
from torchship.progress import Progress
from torchship.project.fetch.address import host_of, shown
from torchship.project.fetch.downloads import Downloads
from torchship.project.fetch.mirrors import Mirrors
from torchship.project.fetch.part import Cancelled, Part, SourceFailed, local_path, regular
from torchship.project.fetch.route import Routes, plain

TRIES = 5
"""How often one address is tried, as long as its fault may pass."""

Download = Callable[[str, Routes, Part, str], str]
"""Writes what a part lacks, from an address: ``(address, routes, part, etag) -> etag``."""


def pause(tries: int, asked: float) -> float:
    """Return the seconds to wait after so many tries: what was asked for, or growing."""
    return max(asked, 0.2 * 2.0 ** (tries - 1))


class Wanted(Struct, frozen=True, kw_only=True):
    """A file that is wanted: ``size`` in bytes, ``sources`` in the order to be tried.

    ``routes`` tells how they are reached.
    """

    filename: str
    digest: Digest
    size: int
    sources: tuple[str, ...] = ()
    label: str = ""
    routes: Routes = plain


class Failure(Struct, frozen=True, kw_only=True):
    """One source that did not give a file. ``gone``: it answered that it has no such file."""

    source: str
    reason: str
    gone: bool = False

    def __str__(self) -> str:
        return f"{shown(self.source)}: {self.reason}"


class Fetcher:
    """Gets one file after another into the downloads; its threads share it."""

    def __init__(
        self,
        downloads: Downloads,
        mirrors: Mirrors,
        progress: Progress,
        download: Download,
    ) -> None:
        self.cancelled = threading.Event()
        self._downloads = downloads
        self._mirrors = mirrors
        self._progress = progress
        self._download = download
        self._unreachable: dict[tuple[str, Routes], SourceFailed] = {}  # by host

    def get(self, wanted: Wanted) -> Path | tuple[Failure, ...]:
        """Return the verified file, or what was tried; raise `StoreError` for a full disk."""
        with storing(self._downloads.place(wanted.digest, wanted.filename), wanted.size):
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
                part.finish()
                self._downloads.partial_path(wanted.digest).unlink(missing_ok=True)
                return linked
        if part.complete and not part.good:
            part.restart()  # left by a process that wrote something else
        inherited = part.done
        self._fill(source, path, part, wanted.routes)
        if not part.good and inherited:
            # The beginning came from elsewhere, or was not all written before a power cut.
            part.restart()
            self._fill(source, path, part, wanted.routes)
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

    def _fill(self, source: str, path: Path | None, part: Part, routes: Routes) -> None:
        if path is not None:
            part.copy(path)
            return
        tries, etag, host = 0, "", (host_of(source), routes)
        while not part.complete:
            if host in self._unreachable:  # found out with another file: do not wait again
                raise self._unreachable[host]
            before = part.done
            try:
                etag = self._download(source, routes, part, etag)
                if not part.complete:
                    raise SourceFailed(f"ended after {part.done} bytes of {part.size}", retry=0.0)
            except SourceFailed as failed:
                tries = 1 if part.done - before >= CHUNK else tries + 1
                if failed.retry is None or tries >= TRIES:
                    if failed.unreachable:
                        self._unreachable[host] = failed
                    raise
                if self.cancelled.wait(pause(tries, failed.retry)):
                    raise Cancelled from failed


@contextmanager
def storing(path: Path, size: int) -> Iterator[None]:
    """Say what a failure of the disk means for the file that was to be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"no space is left on the disk for {path}, which needs {size} bytes",
                hint="free some space (`torchship prune` may), "
                "or set TORCHSHIP_HOME to a folder on another disk; what was downloaded is kept",
            ) from error
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}",
            hint="make the folder writable, or set TORCHSHIP_HOME to another one",
        ) from error
