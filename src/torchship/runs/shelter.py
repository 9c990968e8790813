"""A run directory is nobody else's while the image's program may write to it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torchship.engines.handover import disarm

_OTHERS = 0o077


@contextmanager
def sheltered(output: Path) -> Iterator[None]:
    """Let no other user into the folder that holds an output directory, until it is harmless.

    A program on the native engine is the caller outside, on Docker it may be root: a setuid file
    that it makes would give whoever starts it on this machine the same rights. Such bits are gone
    when the folder has its former mode again; where they cannot be taken, and where torchship is
    killed meanwhile, it stays closed. A folder of another user's is as open as they have it.
    """
    folder = os.open(output.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(folder)
        mode = stat.S_IMODE(found.st_mode)
        mine = found.st_uid == os.geteuid()
        if mine:
            os.fchmod(folder, mode & ~_OTHERS)
        try:
            yield
        finally:
            harmless = disarm(output)
            if mine and harmless:
                os.fchmod(folder, mode)
    finally:
        os.close(folder)
