"""Which of a project's files go into its image: patterns decide, and what folders say they are.

`DEFAULTS`, then ``.dockerignore``, then ``exclude`` are one list of patterns, so that a later ``!``
takes back what an earlier one leaves out. Some folders say themselves what they are. Caches
(``CACHEDIR.TAG``) and run directories (`MARK`, or ``record.json`` beside the runs' own files) stay
out unless an exception names them: a model that was downloaded lies in a cache, too. Virtual
environments (``pyvenv.cfg``, ``conda-meta``) never go in.

A folder that is not left out goes in, as it does for Docker, even where nothing in it does: a
program may count on it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from torchship.layers.dockerignore import Patterns

RESULTS = ("lightning_logs", "mlruns", "output", "outputs", "runs", "wandb")
"""Of `DEFAULTS`, the folders that may hold what a program reads, too."""

DEFAULTS = (
    # version control
    "**/.git", "**/.hg", "**/.svn",
    # what Python and its tools leave behind
    "**/__pycache__", "**/*.py[co]", "**/.ipynb_checkpoints", "**/.mypy_cache", "**/.nox",
    "**/.pytest_cache", "**/.ruff_cache", "**/.tox", "**/*.egg-info",
    # editors and desktops
    "**/.DS_Store", "**/.idea", "**/.vscode",
    # what training leaves behind: torchship's runs and TensorBoard's, outputs, other trackers
    *RESULTS,
    # what it pins is in the image, and its time would give every relock another digest
    "torchship.lock",
)  # fmt: skip
"""Left out unless ``.dockerignore`` or ``exclude`` takes it back, as in ``!outputs``.

What stays out at any depth is taken back by its name: ``!src`` is not for ``src/__pycache__``.
"""

MARK = ".torchship-run"
"""The file that stands in a run directory from its beginning, also where the run fails."""

MARKED = b"torchship made this folder for what a run gives: it goes into no image.\n"
"""What the file holds."""

_AS_DEFAULT = len(DEFAULTS) - 1  # what says itself that it is no source is left out as these are
_ENVIRONMENT = frozenset({"conda-meta", "pyvenv.cfg"})
_RUN = frozenset({"output", "record.json", "stdout.log"})  # of one run; a record's has a folder
_ONE_OF_SEVERAL = re.compile(r"seed-\d+|run-\d+")  # for each
_RECORD = b'{"_type":"https://in-toto.io/Statement/'  # as `torchship.runs.statement` begins one
_TAG = "CACHEDIR.TAG"
_CACHE = b"Signature: 8a477f597d28d172789f06886806bc55"  # Cache Directory Tagging Specification


class Selection:
    """The files, links and empty folders of a project that go in.

    Once they were iterated over, ``faults`` say what could not be listed, and ``caches`` are the
    folders that stay out though no pattern says so.
    """

    def __init__(self, root: Path, *, exclude: Iterable[str] = ()) -> None:
        self.faults: list[str] = []
        self.caches: list[str] = []
        self._root = root
        self._patterns = _defaults() + _own(root, exclude)

    def __iter__(self) -> Iterator[tuple[os.DirEntry[str], str]]:
        """Yield each with its path below the root, in no order."""
        return self._below("", self._listed("") or [], frozenset())

    def _below(
        self, folder: str, entries: Sequence[os.DirEntry[str]], above: frozenset[int]
    ) -> Iterator[tuple[os.DirEntry[str], str]]:
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            out, hits = self._patterns.decide(path, above)
            if not entry.is_dir(follow_symlinks=False):
                if not out:
                    yield entry, path
                continue
            found = self._folder(path, hits, out=out)
            if found is None:
                continue
            empty = not found.out
            for below in self._below(path, found.entries, found.hits):
                empty = False
                yield below
            if empty:
                yield entry, path

    def _folder(self, path: str, hits: frozenset[int], *, out: bool) -> _Folder | None:
        """Return a folder to look into; None for one of which nothing goes in.

        ``out`` is what the patterns ``hits`` say of it.
        """
        if out and not self._patterns.may_take_back(path):
            return None
        entries = self._listed(path)
        names = {each.name for each in entries or ()}
        if entries is None or names & _ENVIRONMENT:
            return None
        is_cache = _is_cache(self._root / path, names)
        if is_cache or _is_run(self._root / path, names):
            was_out = out
            out, hits = self._patterns.leave_out(path, hits, _AS_DEFAULT)
            if out and not self._patterns.names_below(path):
                if is_cache and not was_out:
                    self.caches.append(path)
                return None
        return _Folder(entries=entries, hits=hits, out=out)

    def _listed(self, folder: str) -> list[os.DirEntry[str]] | None:
        try:
            with os.scandir(self._root / folder) as found:
                return list(found)
        except OSError as fault:
            self.faults.append(f"{folder or '.'} cannot be listed ({fault.strerror})")
            return None


class _Folder(Struct, frozen=True, kw_only=True):
    """A folder of which something may go in: ``out`` tells whether it does by itself."""

    entries: list[os.DirEntry[str]]
    hits: frozenset[int]
    out: bool


def left_out(root: Path, *, exclude: Iterable[str] = ()) -> tuple[str, ...]:
    """Return which of `RESULTS` the project has, and its own patterns say nothing of.

    Folders that hold nothing but run directories of torchship's are no news.
    """
    here = [name for name in RESULTS if (root / name).is_dir()]
    if not here:
        return ()
    own = _own(root, exclude)
    return tuple(
        name
        for name in here
        if not own.decide(name, frozenset())[1]
        and not own.may_take_back(name)
        and _holds_more_than_runs(root / name)
    )


def _holds_more_than_runs(folder: Path) -> bool:
    try:
        return not all(
            path.is_dir() and _is_run(path, [each.name for each in path.iterdir()])
            for path in folder.iterdir()
        )
    except OSError:
        return False  # what cannot be looked into is not missed


def _defaults() -> Patterns:
    found = Patterns.parse(DEFAULTS, origin="the defaults").patterns
    return Patterns(tuple(replace(each, firm=each.text.startswith("**/")) for each in found))


def _own(root: Path, exclude: Iterable[str]) -> Patterns:
    found = Patterns.of(root)
    return found + Patterns.parse(exclude, origin="exclude in [tool.torchship]")


def _is_cache(folder: Path, names: Collection[str]) -> bool:
    return _TAG in names and _begins(folder / _TAG, _CACHE)


def _is_run(folder: Path, names: Collection[str]) -> bool:
    """Tell whether a folder of these names is a run directory (`torchship.runs.run`)."""
    if MARK in names and _begins(folder / MARK, MARKED):
        return True
    return (
        "record.json" in names
        and (_RUN.issubset(names) or any(_ONE_OF_SEVERAL.fullmatch(name) for name in names))
        and _begins(folder / "record.json", _RECORD)
    )


def _begins(path: Path, words: bytes) -> bool:
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as stream:
            return stream.read(len(words)) == words
    except OSError:
        return False  # where it goes in, it is named as what cannot be read
