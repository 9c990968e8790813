"""The root file system of a container, from inside its new namespaces.

Every mount is made before the root is switched, attached to nothing; the host's root is then
taken away; only then are paths inside the image resolved, where no host path exists any more.
So a symlink in a hostile image leads nowhere but into the image.
"""

from __future__ import annotations

import os
import stat

from torchship.engines import syscalls
from torchship.engines.syscalls import NODEV, NOEXEC, NOSUID, RDONLY

TYPE_CHECKING = False  # typing's own costs 10 ms of every start
if TYPE_CHECKING:
    from torchship.engines.specification import RootSpecification

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
# What programs read of the processors; the rest of /sys says more of the host than they need.
_SYSTEM = ("/sys/devices/system/cpu", "/sys/devices/system/node")
_HIDDEN = frozenset(
    (
        *("acpi", "asound", "scsi", "keys", "key-users", "timer_list", "timer_stats"),
        *("latency_stats", "sched_debug", "interrupts", "kallsyms", "modules", "vmallocinfo"),
    )
)


def build(specification: RootSpecification) -> None:
    """Build the root and switch to it; the working directory is then ``/``."""
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    root = _overlay(specification)
    memory = {"size": str(specification["shared_memory"]), "mode": "1777"}
    devices = {name: syscalls.clone_mount(f"/dev/{name}") for name in _DEVICES}
    system = {path: _bind(path, RDONLY | NOEXEC) for path in _SYSTEM if os.path.isdir(path)}  # noqa: PTH112
    asked = [
        (_bind(source, attributes), target)
        for source, target, attributes in specification["mounts"]
    ]
    nodes = [(_device(source), target) for source, target in specification["devices"]]
    mounts = {
        "/proc": syscalls.new_mount("proc", NOSUID | NODEV | NOEXEC),
        "/dev": syscalls.new_mount("tmpfs", NOSUID | NOEXEC, {"mode": "755", "size": "64k"}),
        "/dev/pts": syscalls.new_mount(
            "devpts", NOSUID | NOEXEC, {"newinstance": None, "ptmxmode": "0666", "mode": "620"}
        ),
        "/dev/shm": syscalls.new_mount("tmpfs", NOSUID | NODEV, memory),  # noqa: S108 (a mount)
        "/dev/mqueue": syscalls.new_mount("mqueue", NOSUID | NODEV | NOEXEC),
        "/sys": syscalls.new_mount("tmpfs", NOSUID | NODEV | NOEXEC, {"mode": "755", "size": "4k"}),
    }

    _switch(root)

    for target, mounted in mounts.items():
        _attach(mounted, target)
    for name, device in devices.items():
        _touch(f"/dev/{name}")
        syscalls.attach(device, f"/dev/{name}")
    for name, link in _DEVICE_LINKS.items():
        os.symlink(link, f"/dev/{name}")  # noqa: PTH211
    for path, mounted in system.items():
        _attach(mounted, path)
    for path, content in specification["files"].items():
        _write(path, content)
    # Before anything of the host is mounted: a link must not be written into one of its folders
    for path, target in specification["links"].items():
        _link(path, target)
    for path in specification["folders"]:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103
    for mounted, target in asked:
        if os.path.isdir(f"/proc/self/fd/{mounted}"):  # noqa: PTH112
            _attach(mounted, target)
        else:
            _attach_file(mounted, target)
    for mounted, target in nodes:
        _attach_file(mounted, target)
    _no_more_namespaces()
    _protect_proc()


def _overlay(specification: RootSpecification) -> str:
    # mount(2) takes one page of options: short relative names leave room for 127 layers
    os.chdir(os.path.join(specification["scratch"], "l"))  # noqa: PTH118
    lower = ":".join(str(number) for number in range(specification["layers"]))
    options = f"lowerdir={lower},upperdir=../upper,workdir=../work,userxattr,volatile"
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("overlay", "../root", "overlay", flags, options)
    return os.path.join(specification["scratch"], "root")  # noqa: PTH118


def _bind(source: str, attributes: int) -> int:
    mounted = syscalls.clone_mount(source)
    syscalls.restrict(mounted, attributes | NOSUID | NODEV)
    return mounted


def _device(source: str) -> int:
    """Take over a device node: the one kind of mount that may hold one."""
    mounted = syscalls.clone_mount(source)
    syscalls.restrict(mounted, NOSUID | NOEXEC)
    return mounted


def _switch(root: str) -> None:
    """Make ``root`` the root, and take the old one away for good."""
    os.chdir(root)
    # pivot_root(2), "pivot_root(".", ".")": the old root is stacked on the new one and then
    # detached, so no folder of the image has to hold it
    syscalls.pivot_root(".", ".")
    syscalls.detach(".")
    os.chdir("/")


def _attach(mounted: int, target: str) -> None:
    os.makedirs(target, exist_ok=True)  # noqa: PTH103
    syscalls.attach(mounted, target)


def _attach_file(mounted: int, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
    _touch(target)
    syscalls.attach(mounted, target)


def _touch(path: str) -> None:
    try:  # noqa: SIM105 (contextlib costs 3 ms of every start)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        pass


def _link(path: str, target: str) -> None:
    _clear(path)
    os.symlink(target, path)  # noqa: PTH211


def _clear(path: str) -> None:
    """Make a place for a file: what the image has there is taken away, and no link followed."""
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    try:  # noqa: SIM105
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        pass


def _write(path: str, content: bytes) -> None:
    _clear(path)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    with open(descriptor, "wb") as stream:  # noqa: PTH123
        stream.write(content)


def _no_more_namespaces() -> None:
    """Forbid user namespaces below this one: with them a program gets at far more of the kernel."""
    with open("/proc/sys/user/max_user_namespaces", "w") as stream:  # noqa: PTH123
        stream.write("0")


def _protect_proc() -> None:
    """Leave of ``/proc`` the processes; the rest is read-only, and what tells too much is hidden.

    Needed above all where the caller is root: its uid, though without capabilities, owns
    ``/proc/sysrq-trigger`` and most of ``/proc/sys``.
    """
    with os.scandir("/proc") as listing:
        entries = [
            entry for entry in listing if not entry.name.isdigit() and not entry.is_symlink()
        ]
    for entry in entries:
        mode = entry.stat(follow_symlinks=False).st_mode
        hidden = entry.name in _HIDDEN or not mode & stat.S_IROTH
        if not hidden:
            syscalls.attach(_bind(entry.path, RDONLY | NOEXEC), entry.path)
        elif not stat.S_ISDIR(mode):
            syscalls.attach(syscalls.clone_mount("/dev/null"), entry.path)
        else:
            attributes = NOSUID | NODEV | NOEXEC | RDONLY
            syscalls.attach(syscalls.new_mount("tmpfs", attributes, {"mode": "555"}), entry.path)
