"""A run directory: what one execution of an image printed, wrote and measured.

runs/20261122T230000Z-440fcabf73cc/
  output/        what the program wrote; /output in the container
  stdout.log     what it printed
  record.json    what ran and what it gave (`runs.record`)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from torchship.digest import Digest
from torchship.errors import StoreError

PARENT = "runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDirectory:
    """The files of one run, under ``path``."""

    path: Path

    @classmethod
    def create(cls, parent: Path, image: Digest, now: datetime) -> RunDirectory:
        """Make ``<UTC time>-<short digest>`` below ``parent``; a second one in a second gets -2."""
        stem = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{image.short}"
        for attempt in range(1, 1000):
            path = parent / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                (path / "output").mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise StoreError(
                    f"cannot make the run directory {path}: {error.strerror}",
                    hint="name a folder that you may write to with -o DIR",
                ) from None
            return cls(path=path)
        raise StoreError(f"{parent} holds a thousand runs of this second", hint="use -o DIR")

    @classmethod
    def at(cls, path: Path) -> RunDirectory:
        """Use a folder that the user named; it may exist, but must hold no other run."""
        if (path / "record.json").exists():
            raise StoreError(f"{path} already holds a run", hint="name another folder with -o DIR")
        try:
            (path / "output").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot make the run directory {path}: {error.strerror}",
                hint="name a folder that you may write to with -o DIR",
            ) from None
        return cls(path=path)

    @property
    def output(self) -> Path:
        """What the program writes: ``/output`` in the container."""
        return self.path / "output"

    @property
    def log(self) -> Path:
        """What the program printed, on both of its streams."""
        return self.path / "stdout.log"

    @property
    def record(self) -> Path:
        """The run's record."""
        return self.path / "record.json"
