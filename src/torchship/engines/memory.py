"""A limit on the memory of a container, where the caller may set one.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torchship.errors import EngineError

_CGROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_ENTER = 'echo $$ > "$0" && exec "$@"'


@contextmanager
def limited(limit: int | None) -> Iterator[tuple[str, ...]]:
    """Yield the start of a command line which runs the rest of it below ``limit`` bytes.

    Nothing (an empty start) for no limit. Raises `EngineError` where the caller has no cgroup
    of their own to set one on: a limit that is asked for is never quietly left out.
    """
    if limit is None:
        yield ()
        return
    parent, settings = _place(limit)
    group = parent / f"torchship-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        raise EngineError(
            f"no memory limit can be set: {parent} cannot be written to ({error.strerror})",
            hint="leave --memory out, start torchship with `systemd-run --user --scope "
            "-p MemoryMax=...`, or run the image with Docker",
        ) from error
    try:
        for name, value in settings.items():
            (group / name).write_text(value)
        yield "/bin/sh", "-c", _ENTER, str(group / "cgroup.procs")
    finally:
        group.rmdir()


def _place(limit: int) -> tuple[Path, dict[str, str]]:
    for line in _CGROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return _MOUNT / "memory" / path.lstrip("/"), {"memory.limit_in_bytes": str(limit)}
        if not controllers:
            # A group with processes can have no limited groups below it: make a sister
            parent = (_MOUNT / path.lstrip("/")).parent if path != "/" else _MOUNT
            subtree = parent / "cgroup.subtree_control"
            if subtree.exists() and "memory" in subtree.read_text().split():
                return parent, {"memory.max": str(limit), "memory.swap.max": "0"}
    raise EngineError(
        "no memory limit can be set: this machine gives the caller no memory cgroup",
        hint="leave --memory out, or run the image with Docker",
    )
