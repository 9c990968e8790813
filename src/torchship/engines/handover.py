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

from torchship.errors import EngineError

_ACL = "system.posix_acl_access"
_VERSION = 2
_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_ALL = 0o7
_NOBODY = 0xFFFFFFFF


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

    def refuse(error: OSError) -> None:
        raise error

    try:
        return all(
            os.stat(name, dir_fd=inside, follow_symlinks=False).st_uid == mine
            for _, folders, files, inside in os.fwalk(folder, onerror=refuse)
            for name in (*folders, *files)
        )
    except PermissionError:  # a folder that its owner alone may read
        return False


def take(folder: Path) -> None:
    """Give all below a folder to the caller, who is root. Symlinks are not followed."""
    uid, gid = os.geteuid(), os.getegid()
    for _, folders, files, inside in os.fwalk(folder):
        for name in (*folders, *files):
            os.chown(name, uid, gid, dir_fd=inside, follow_symlinks=False)
