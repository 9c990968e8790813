"""A run directory is nobody else's while the image's program may write to it."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torchship.engines.handover import disarm
from torchship.engines.signals import held

_OTHERS = 0o077
# Some mounts of storage elsewhere know no modes: what is in them, the mount's options decide.
_NO_MODES = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS})


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
        closed = found.st_uid == os.geteuid() and _changed(folder, mode & ~_OTHERS)
        try:
            yield
        finally:
            # Ctrl-C may still come again and again, for the program's sake: it waits a moment
            with held((signal.SIGINT,)):
                harmless = disarm(output)
                if closed and harmless:
                    os.fchmod(folder, mode)
    finally:
        os.close(folder)


def _changed(folder: int, mode: int) -> bool:
    """Give an open folder a mode; return whether its file system knows modes."""
    try:
        os.fchmod(folder, mode)
    except OSError as error:
        if error.errno not in _NO_MODES:
            raise
        return False
    return True
