"""Local folders that are searched by sha256 before anything is downloaded.

``TORCHSHIP_MIRRORS=DIR[:DIR]`` names them. A file's name is only a reason to look at it
first: what counts is its sha256.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from torchship.digest import Digest
from torchship.errors import UsageError

VARIABLE = "TORCHSHIP_MIRRORS"


class Mirrors:
    """The folders, listed once and hashed as far as needed; threads may share one."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._lock = threading.Lock()
        self._by_size: dict[int, list[Path]] | None = None
        self._digests: dict[tuple[Path, int, int], Digest] = {}

    @classmethod
    def from_environment(cls) -> Mirrors:
        """Read ``TORCHSHIP_MIRRORS``; raise `UsageError` for a folder that is not there."""
        folders = [Path(text) for text in os.environ.get(VARIABLE, "").split(":") if text]
        for folder in folders:
            if not folder.is_dir():
                raise UsageError(
                    f"{VARIABLE} names {folder}, which is not a folder",
                    hint=f"correct or unset {VARIABLE}",
                )
        return cls(folders)

    def find(self, digest: Digest, *, filename: str = "", size: int | None = None) -> Path | None:
        """Return a file that had this digest when it was read, or None.

        With ``size`` (bytes) only files of that size are read; without, all of them may be.
        """
        with self._lock:
            for path in self._candidates(filename, size):
                if self._digest(path) == digest:
                    return path
        return None

    def _candidates(self, filename: str, size: int | None) -> list[Path]:
        if self._by_size is None:
            self._by_size = _listed(self._folders)
        if size is None:
            paths = [path for group in self._by_size.values() for path in group]
        else:
            paths = self._by_size.get(size, [])
        return sorted(paths, key=lambda path: (path.name != filename, path))

    def _digest(self, path: Path) -> Digest | None:
        try:
            found = path.stat()
            key = (path, found.st_mtime_ns, found.st_size)
            if key not in self._digests:
                self._digests[key] = Digest.of_file(path)
        except OSError:
            return None  # not ours to read, or gone meanwhile: the next one may do
        return self._digests[key]


def _listed(folders: Sequence[Path]) -> dict[int, list[Path]]:
    by_size: dict[int, list[Path]] = {}
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                path = Path(parent, name)
                try:
                    found = path.stat()
                except OSError:
                    continue  # a dangling link
                if stat.S_ISREG(found.st_mode):
                    by_size.setdefault(found.st_size, []).append(path)
    return by_size
