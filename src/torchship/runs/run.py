"""A run directory: what one execution of an image printed, wrote and measured.

runs/20261122T230000Z-440fcabf73cc/
  output/        what the program wrote; /output in the container
  stdout.log     what it printed
  record.json    what ran and what it gave (`runs.record`)
  .torchship-run tells from the beginning that this is one: it goes into no image

A directory of several runs has one such directory for each, and one record for all:

runs/20261122T230000Z-440fcabf73cc/
  seed-1/  seed-2/  ...
  repeat/        the first seed once more
  record.json
  .torchship-run
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from torchship.digest import Digest
from torchship.errors import StoreError, UsageError
from torchship.layers.selection import MARK, MARKED

PARENT = "runs"
OUTPUT = "output"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDirectory:
    """The files of one run, under ``path``; ``made`` tells that the folder was made for it."""

    path: Path
    made: bool = True

    @classmethod
    def create(cls, parent: Path, image: Digest, now: datetime) -> RunDirectory:
        """Make ``<UTC time>-<short digest>`` below ``parent``; a second one in a second gets -2."""
        path = _fresh(parent, image, now)
        _mark(path)
        _make(path / OUTPUT)
        return cls(path=path)

    @classmethod
    def at(cls, path: Path) -> RunDirectory:
        """Use a folder that the user named; it may exist, but must be empty."""
        check(path)
        made = not path.exists()
        _make(path)
        _mark(path)
        _make(path / OUTPUT)
        return cls(path=path, made=made)

    def discard(self) -> None:
        """Remove the directory of a run that never began; nothing that holds anything."""
        with suppress(OSError):
            if self.log.is_file() and self.log.stat().st_size == 0:
                self.log.unlink()
            self.output.rmdir()
            _unmark(self.path)
            if self.made:
                self.path.rmdir()

    @property
    def output(self) -> Path:
        """What the program writes: ``/output`` in the container."""
        return self.path / OUTPUT

    @property
    def log(self) -> Path:
        """What the program printed, on both of its streams."""
        return self.path / "stdout.log"

    @property
    def record(self) -> Path:
        """The run's record."""
        return self.path / "record.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordDirectory:
    """The files of several runs of one image, under ``path``; ``made`` as a run's."""

    path: Path
    made: bool = True

    @classmethod
    def create(cls, parent: Path, image: Digest, now: datetime) -> RecordDirectory:
        """Make a directory of its own below ``parent``, named as a single run's would be."""
        path = _fresh(parent, image, now)
        _mark(path)
        return cls(path=path)

    @classmethod
    def at(cls, path: Path) -> RecordDirectory:
        """Use a folder that the user named; it may exist, but must be empty."""
        check(path)
        made = not path.exists()
        _make(path)
        _mark(path)
        return cls(path=path, made=made)

    def discard(self) -> None:
        """Remove the directory where no run has left anything in it."""
        with suppress(OSError):
            _unmark(self.path)
            if self.made:
                self.path.rmdir()

    def run(self, seed: int | None, place: int) -> RunDirectory:
        """Make the directory of one run: by its seed, or by its place where it has none."""
        return RunDirectory.at(self.path / _name(seed, place))

    def repeat(self) -> RunDirectory:
        """Make the directory of the first seed's second run."""
        return RunDirectory.at(self.path / "repeat")

    @property
    def record(self) -> Path:
        """The record of all runs."""
        return self.path / "record.json"


def folder_of(path: Path, seed: int | None, place: int) -> Path:
    """Return where one run's files are, in a directory of one run or of several.

    ``place`` is the run's, from 1, among those of the record. The folder need not be there.
    """
    return path if (path / OUTPUT).is_dir() else path / _name(seed, place)


def _name(seed: int | None, place: int) -> str:
    return f"run-{place}" if seed is None else f"seed-{seed}"


def check(path: Path) -> None:
    """Raise `UsageError` where a folder that the user named cannot be a run's own."""
    hint = "name a new folder with -o DIR"
    if (path / "record.json").exists():
        raise UsageError(f"{path} already holds a run", hint=hint)
    if path.is_dir() and holds_anything(path):
        raise UsageError(f"{path.absolute()} is not empty", hint=hint)


def holds_anything(path: Path) -> bool:
    """Tell whether there is more in a folder than what says that it is a run's."""
    return any(each.name != MARK for each in path.iterdir())


def _mark(path: Path) -> None:
    try:
        (path / MARK).write_bytes(MARKED)
    except OSError as error:
        raise _refused(path, error) from None


def _unmark(path: Path) -> None:
    if not holds_anything(path):
        (path / MARK).unlink(missing_ok=True)


def _fresh(parent: Path, image: Digest, now: datetime) -> Path:
    stem = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{image.short}"
    for attempt in range(1, 1000):
        path = parent / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _refused(path, error) from None
        return path
    raise StoreError(f"{parent} holds a thousand runs of this second", hint="use -o DIR")


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(path, error) from None


def _refused(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot make the run directory {path}: {error.strerror}",
        hint="name a folder that you may write to with -o DIR",
    )
