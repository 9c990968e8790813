"""What a program wrote where nothing is kept, so that it can be told before it is gone."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from torchship.engines.descent import enter, walk

SHOWN = 5
"""Names that a line holds; of more, it says how many there are."""

_DEEPEST = 64  # folders within folders: no path grows with what a program digs


def leftover(upper: Path, workdir: str, *, mounts: Collection[str] = ()) -> tuple[str, ...]:
    """Return the files that a program wrote below its working directory, relative to that.

    ``upper`` is the folder that holds what differs from the image (Linux' overlayfs.rst: "upper");
    ``mounts`` are paths of the container where the engine itself made a place for a mount. Caches
    are left out: hidden folders and files, and Python's bytecode. Nothing outside ``upper`` is
    looked at, whatever the program made of the way to its working directory.
    """
    parts = [part for part in workdir.split("/") if part not in ("", ".")]
    if ".." in parts:
        return ()
    try:
        top = _descend(upper, parts)
    except OSError:  # nothing was written there, or a link stands in its place
        return ()
    try:
        return tuple(
            sorted(
                "/".join(path)
                for path in _written(top)
                if "/" + "/".join((*parts, *path)) not in mounts
            )
        )
    finally:
        os.close(top)


def _written(top: int) -> Iterator[tuple[str, ...]]:
    for opened in walk(top):
        deeper = len(opened.above) < _DEEPEST
        opened.folders[:] = [name for name in opened.folders if deeper and not _is_cache(name)]
        for name in opened.files:
            # a deleted file of the image stands as a device, overlayfs' whiteout
            if not _is_cache(name) and _is_file(name, opened.descriptor):
                yield (*opened.above, name)


def _is_cache(name: str) -> bool:
    return name == "__pycache__" or name.startswith(".")


def told(files: Collection[str], *, kept: str) -> str:
    """Say that files are gone, and where they would have stayed."""
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    more = ", ..." if len(files) > SHOWN else ""
    was = "was" if len(files) == 1 else "were"
    return (
        f"{count} written outside {kept} {was} not kept: "
        f"{', '.join(_shown(name) for name in sorted(files)[:SHOWN])}{more} "
        f"(TORCHSHIP_OUTPUT names {kept})"
    )


def _shown(name: str) -> str:
    """Write a name so that it stays one: what moves a terminal's cursor stands as Python's."""
    return name if name.isprintable() else repr(name)


def _descend(upper: Path, parts: Collection[str]) -> int:
    current = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            below = enter(part, current)
        finally:
            os.close(current)
        current = below
    return current


def _is_file(name: str, inside: int) -> bool:
    return stat.S_ISREG(os.stat(name, dir_fd=inside, follow_symlinks=False).st_mode)
