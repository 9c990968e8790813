"""Why a program failed and what helps, where the end of what it printed tells."""

from __future__ import annotations

import os
import re
from pathlib import Path

_END = 1 << 16  # bytes: the traceback of a failed download, with all that raised it
# What glibc's getaddrinfo (gai_strerror) and the kernel (ENETUNREACH) say, and those who hide it.
_OFFLINE = re.compile(
    rb"Name or service not known|Temporary failure in name resolution"
    rb"|No address associated with hostname|Network is unreachable"
    rb"|Could not resolve host|unable to resolve host address|dns error: failed to lookup"
)
# The last line of a traceback of Python's. One before it may have been handled.
_ERROR = re.compile(rb"^[A-Za-z_][\w.]{0,200}(?:Error|Exception|Exit|Interrupt)\b.*", re.M)
# Of a dotted name, the first part is what is installed.
_MODULE = re.compile(rb"ModuleNotFoundError: No module named '(\w{1,80})(?:\.[\w.]{1,200})?'")


def hint(log: Path, *, network: bool) -> str | None:
    """Say what a program that failed may have lacked; None where its log does not tell.

    ``network`` says whether it had one.
    """
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _END))
            said = stream.read(_END)
    except FileNotFoundError:  # a program on a terminal has no log
        return None
    if not network and _OFFLINE.search(said):
        return "the program had no network: --network gives it"
    errors = _ERROR.findall(said)
    if errors and (absent := _MODULE.match(errors[-1])):
        name = absent[1].decode(errors="replace")
        return f"no module {name} in the image: add what has it to the project's requirements"
    return None
