"""What a program wrote where nothing is kept, so that it can be told before it is gone."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from torchship.amounts import counted

SHOWN = 5
"""Names that a line holds; of more, it says how many there are."""


def leftover(upper: Path, workdir: str, *, mounts: Collection[str] = ()) -> tuple[str, ...]:
    """Return the files that a program wrote below its working directory, relative to that.

    ``upper`` is the folder that holds what differs from the image (Linux' overlayfs.rst: "upper");
    ``mounts`` are paths of the container where the engine itself made a place for a mount. Caches
    are left out: hidden folders and files, and Python's bytecode.
    """
    top = upper / workdir.lstrip("/")
    if not top.is_relative_to(upper) or top.is_symlink():
        return ()
    found = []
    for folder, names, files in os.walk(top):
        names[:] = [name for name in names if name != "__pycache__" and not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            # a deleted file of the image stands as a device, overlayfs' whiteout
            if name.startswith(".") or path.is_symlink() or not path.is_file():
                continue
            if "/" + path.relative_to(upper).as_posix() not in mounts:
                found.append(path.relative_to(top).as_posix())
    return tuple(sorted(found))


def told(files: Collection[str], *, kept: str) -> str:
    """Say that files are gone, and where they would have stayed."""
    more = ", ..." if len(files) > SHOWN else ""
    was = "was" if len(files) == 1 else "were"
    return (
        f"{counted(len(files), 'file')} written outside {kept} {was} not kept: "
        f"{', '.join(sorted(files)[:SHOWN])}{more} "
        f"(TORCHSHIP_OUTPUT names {kept})"
    )
