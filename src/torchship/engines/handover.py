"""What a container writes belongs to the caller, also where another user wrote it.

An engine with a daemon of root's runs a program as the image's user, a number that is somebody
else on this machine. For the time of a run that user is let into the output directory by an
access control list; afterwards the files are given to the caller.

Source: acl(5); the kernel's include/uapi/linux/posix_acl_xattr.h for the attribute's bytes.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from torchship.engines.descent import change_mode, enter, walk
from torchship.errors import EngineError

_ACL = "system.posix_acl_access"
_VERSION = 2
_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_ALL = 0o7
_NOBODY = 0xFFFFFFFF
_BORROWED = stat.S_ISUID | stat.S_ISGID


@contextmanager
def writable_by(uid: int, folder: Path) -> Iterator[None]:
    """Let a user of this machine write into a folder of the caller's; as before on leaving.

    Where the file system keeps no access control lists, everybody may. Raises `EngineError`
    for a folder that is not the caller's.
    """
    if sys.platform != "linux" or uid in (0, os.geteuid()):
        yield  # root needs no leave; elsewhere the engine's virtual machine maps owners itself
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    try:
        _open_to(uid, folder, mode)
    except PermissionError as error:
        raise EngineError(
            f"{folder} belongs to another user, so the image's user cannot be let into it",
            hint="name a folder of your own with -o DIR",
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # there is none where the file system keeps none
            os.removexattr(folder, _ACL)
        folder.chmod(mode)


def _open_to(uid: int, folder: Path, mode: int) -> None:
    entries = (
        (_USER_OBJ, mode >> 6 & _ALL, _NOBODY),
        (_USER, _ALL, uid),
        (_GROUP_OBJ, mode >> 3 & _ALL, _NOBODY),
        (_MASK, _ALL, _NOBODY),
        (_OTHER, mode & _ALL, _NOBODY),
    )
    packed = struct.pack("<I", _VERSION) + b"".join(struct.pack("<HHI", *one) for one in entries)
    try:
        os.setxattr(folder, _ACL, packed)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EINVAL):
            raise
        folder.chmod(mode | 0o007)


def all_mine(folder: Path) -> bool:
    """Tell whether everything below a folder belongs to the caller."""
    mine = os.geteuid()
    try:
        with _inside(folder) as top:
            return all(found.status.st_uid == mine for found in _entries(top))
    except PermissionError:  # a folder that its owner alone may read
        return False


def take(folder: Path) -> None:
    """Give all below a folder to the caller, who is root. Symlinks are not followed."""
    uid, gid = os.geteuid(), os.getegid()
    with _inside(folder) as top:
        for found in _entries(top):
            os.chown(found.name, uid, gid, dir_fd=found.inside, follow_symlinks=False)


def disarm(folder: Path) -> bool:
    """Take the setuid and setgid bits from every file below a folder; no symlink is followed.

    With them a program of the image's could be started as the caller by anybody. Returns whether
    certainly none is left: of another user's files only root can take them.
    """
    none_left = True
    try:
        with _inside(folder) as top:
            for found in _entries(top):
                mode = stat.S_IMODE(found.status.st_mode)
                if not stat.S_ISREG(found.status.st_mode) or not mode & _BORROWED:
                    continue
                try:
                    change_mode(found.name, mode & ~_BORROWED, found.inside)
                except FileNotFoundError:  # gone meanwhile
                    continue
                except PermissionError:
                    none_left = False
    except OSError:  # a closed folder of another user's, or one that changes meanwhile
        return not os.path.lexists(folder)
    return none_left


class _Entry(Struct, frozen=True, kw_only=True):
    name: str
    inside: int
    status: os.stat_result


def _entries(top: int) -> Iterator[_Entry]:
    for opened in walk(top):
        for name in (*opened.folders, *opened.files):
            try:
                status = os.stat(name, dir_fd=opened.descriptor, follow_symlinks=False)
            except FileNotFoundError:  # gone meanwhile
                continue
            yield _Entry(name=name, inside=opened.descriptor, status=status)


@contextmanager
def _inside(folder: Path) -> Iterator[int]:
    """Open a folder, also where the program closed it to its owner."""
    parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        top = enter(folder.name, parent)
    finally:
        os.close(parent)
    try:
        yield top
    finally:
        os.close(top)
