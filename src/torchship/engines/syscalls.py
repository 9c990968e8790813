"""The Linux system calls that a sandbox needs and that Python has no words for.

Source: the manual pages unshare(2), mount(2), pivot_root(2), capset(2), prctl(2), keyctl(2),
and fsopen(2), open_tree(2), move_mount(2), mount_setattr(2) of the man-pages project. Calls
since number 424 have the same number on every architecture; glibc knows most of them only
since 2.36, so they are made by number. Every function raises `OSError` with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False  # collections.abc costs time at every start
if TYPE_CHECKING:
    from collections.abc import Mapping

_libc = ctypes.CDLL(None, use_errno=True)
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REC = 0x4000
MS_PRIVATE = 0x40000
_MNT_DETACH = 2

# One set of bits for fsmount and mount_setattr
RDONLY = 0x1
NOSUID = 0x2
NODEV = 0x4
NOEXEC = 0x8

_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS = 4, 24, 28
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_SECUREBITS = 0xEF  # NOROOT, NO_SETUID_FIXUP, KEEP_CAPS locked off, NO_CAP_AMBIENT_RAISE, locked
_CAPABILITY_VERSION_3 = 0x20080522
_KEYCTL_JOIN_SESSION_KEYRING = 1


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _here(numbers: Mapping[str, int], what: str) -> int:
    """Return a call's number on this architecture; a Mac imports this module, and calls nothing."""
    machine = os.uname().machine
    if machine not in numbers:
        raise OSError(errno.ENOSYS, f"{what}: its number on {machine} is not known")
    return numbers[machine]


def _syscall(number: int, what: str, *arguments: int | bytes | None) -> int:
    words = [
        ctypes.c_char_p(word) if isinstance(word, bytes | None) else ctypes.c_long(word)
        for word in arguments
    ]
    return _check(_libc.syscall(ctypes.c_long(number), *words), what)


def unshare(flags: int) -> None:
    """Move this process, which must have one thread, into new namespaces."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount a file system. ``options`` may hold up to 4095 bytes."""
    words = (os.fsencode(source), os.fsencode(target), os.fsencode(kind))
    _check(
        _libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(options)),
        f"mount {kind or 'change'} on {target}",
    )


def pivot_root(new: str, old: str) -> None:
    """Make ``new``, a mount, the root, and put the present root on ``old``."""
    number = _here(_PIVOT_ROOT, "pivot_root")
    _syscall(number, "pivot_root", os.fsencode(new), os.fsencode(old))


def detach(target: str) -> None:
    """Take a mount, and all below it, out of the tree of mounts."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")


def new_mount(kind: str, attributes: int, options: Mapping[str, str | None] | None = None) -> int:
    """Make a file system that is mounted nowhere yet; return its descriptor."""
    context = _syscall(_FSOPEN, f"fsopen {kind}", kind.encode(), 1)
    try:
        for name, value in (options or {}).items():
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            encoded = None if value is None else value.encode()
            _syscall(_FSCONFIG, f"{kind} {name}", context, command, name.encode(), encoded, 0)
        _syscall(_FSCONFIG, kind, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _syscall(_FSMOUNT, f"fsmount {kind}", context, 1, attributes)
    finally:
        os.close(context)


def clone_mount(path: str) -> int:
    """Return a detached copy of the mounts at and below a path: a bind mount to be."""
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
    return _syscall(_OPEN_TREE, f"open_tree {path}", _AT_FDCWD, os.fsencode(path), flags)


def restrict(descriptor: int, attributes: int) -> None:
    """Set attributes, such as `RDONLY`, on a detached mount and all below it; clear none."""
    request = attributes.to_bytes(8, "little") + bytes(24)  # struct mount_attr, version 0
    flags = _AT_EMPTY_PATH | _AT_RECURSIVE
    _syscall(_MOUNT_SETATTR, "mount_setattr", descriptor, b"", flags, request, len(request))


def attach(descriptor: int, target: str) -> None:
    """Put a detached mount on a path, and close its descriptor."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH
    what = f"move_mount to {target}"
    _syscall(_MOVE_MOUNT, what, descriptor, b"", _AT_FDCWD, os.fsencode(target), flags)
    os.close(descriptor)


def drop_privileges() -> None:
    """Give up every capability, and every way to get one, for this process and its children."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # EINVAL: one more than the kernel's last
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient set")
    _check(_libc.prctl(_PR_SET_SECUREBITS, ctypes.c_ulong(_SECUREBITS), 0, 0, 0), "securebits")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0), "no_new_privs")
    header = _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)
    _check(_libc.capset(header, bytes(24)), "capset")


def end_with_parent(number: int) -> None:
    """Get this signal when the thread that started this process ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0), "death signal")


def hide_from_others() -> None:
    """Close this process's ``/proc`` entry, and `ptrace`, to processes of the same user."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0), 0, 0, 0), "dumpable")


def new_session_keyring() -> None:
    """Leave the caller's kernel keyring, so that its keys cannot be read."""
    try:
        number = _here(_KEYCTL, "keyctl")
        _syscall(number, "keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # a kernel without keyrings holds no keys either
            raise


def sync_filesystem(descriptor: int) -> None:
    """Write everything that waits for the disk, on the file system of a descriptor."""
    _check(_libc.syncfs(ctypes.c_int(descriptor)), "syncfs")


def clear_command_line() -> None:
    """Overwrite what ``/proc/self/cmdline`` shows: host paths are nobody's business inside."""
    with open("/proc/self/stat", "rb") as stream:  # noqa: PTH123 (pathlib would be loaded for it)
        fields = stream.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start, arg_end: fields 48 and 49 of proc(5)
    name = b"torchship-init"[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, name, len(name))
