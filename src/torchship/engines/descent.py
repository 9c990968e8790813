"""Going through folders that a program filled: to any depth, and through no link.

Every folder is opened by one name, relative to a descriptor of the folder above it, so that no
path is followed that the program, or somebody else meanwhile, could lead elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator

from msgspec import Struct

_TO_LOOK = stat.S_IRUSR | stat.S_IXUSR
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Opened(Struct, frozen=True, kw_only=True):
    """A folder on the way, until the walk goes on. ``above`` are the names from the top to it.

    What is taken out of ``folders`` is not gone into; ``files`` are all other entries, symlinks
    among them.
    """

    above: list[str]
    descriptor: int
    folders: list[str]
    files: list[str]


class _Level(Struct, frozen=True):
    place: tuple[int, int]
    left: list[str]


def walk(top: int) -> Iterator[Opened]:
    """Yield an open folder and all below it. At no time are more than three descriptors open.

    A folder of the caller's that is closed to themselves is opened to them. Raises `OSError` for
    one of another user's that is closed, or that was moved meanwhile.
    """
    current = os.dup(top)
    above: list[str] = []
    levels: list[_Level] = []
    try:
        while True:
            opened = _opened(above, current)
            yield opened
            levels.append(_Level(_place(current), opened.folders))
            while not levels[-1].left:
                levels.pop()
                if not levels:
                    return
                above.pop()
                current = _replaced(current, os.open("..", _FOLDER, dir_fd=current))
                if _place(current) != levels[-1].place:
                    raise OSError(errno.ESTALE, "a folder was moved while it was looked through")
            above.append(levels[-1].left.pop())
            current = _replaced(current, enter(above[-1], current))
    finally:
        os.close(current)


def enter(name: str, inside: int) -> int:
    """Open a folder of an open one, and open it to the caller where it is closed to them."""
    found = os.stat(name, dir_fd=inside, follow_symlinks=False)
    closed = stat.S_ISDIR(found.st_mode) and found.st_mode & _TO_LOOK != _TO_LOOK
    if closed and found.st_uid == os.geteuid():
        change_mode(name, stat.S_IMODE(found.st_mode) | _TO_LOOK, inside)
    return os.open(name, _FOLDER, dir_fd=inside)


def change_mode(name: str, mode: int, inside: int) -> None:
    """Change the mode of what an open folder has of that name; a symlink's, and no other's."""
    if sys.platform == "linux":
        # fchmodat(2) follows symlinks; a descriptor that needs no right to read does not
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)
        try:
            os.chmod(f"/proc/self/fd/{descriptor}", mode)  # noqa: PTH101 (no path of ours)
        finally:
            os.close(descriptor)
    else:
        os.chmod(name, mode, dir_fd=inside, follow_symlinks=False)


def _opened(above: list[str], descriptor: int) -> Opened:
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    return Opened(above=above, descriptor=descriptor, folders=folders, files=files)


def _replaced(old: int, new: int) -> int:
    os.close(old)
    return new


def _place(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
