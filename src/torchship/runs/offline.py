"""A program that looked for the network, and had none: known by what it printed last."""

from __future__ import annotations

import os
import re
from pathlib import Path

HINT = "the program had no network: --network gives it"

_END = 1 << 16  # bytes: the traceback of a failed download, with all that raised it
# What glibc's getaddrinfo (gai_strerror) and the kernel (ENETUNREACH) say, and those who hide it.
_SAID = re.compile(
    rb"Name or service not known|Temporary failure in name resolution"
    rb"|No address associated with hostname|Network is unreachable"
    rb"|Could not resolve host|unable to resolve host address|dns error: failed to lookup"
)


def missed(log: Path) -> bool:
    """Tell whether what a failed program printed ends with a failure to reach any network."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _END))
            return _SAID.search(stream.read(_END)) is not None
    except FileNotFoundError:  # a program on a terminal has no log
        return False
