"""Folders that last as long as one run, and are cleaned up even after a kill -9."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torchship.errors import StoreError
from torchship.oci.folders import private, remove

_PREFIX = "run-"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Make a folder in ``parent``, and remove it afterwards, whatever a container left in it.

    It is locked while in use; what was left by a process that was killed is not, and is removed
    by the next run.
    """
    try:
        private(parent)
        _sweep(parent)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        raise StoreError(
            f"{parent} cannot be written to: {error.strerror}",
            hint="free some space there (`torchship prune` may), "
            "or name another folder in TORCHSHIP_HOME",
        ) from error
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield folder
    finally:
        os.close(descriptor)
        remove(folder)


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:
            continue  # another run removed it just now
        try:
            # A folder that was made a moment ago and not yet locked has nothing in it
            if not any(folder.iterdir()):
                continue
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # in use, or being removed by another run
        finally:
            os.close(descriptor)
