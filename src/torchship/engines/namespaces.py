"""Whether this machine lets the caller make user namespaces, and what to do where it does not.

Source: user_namespaces(7), Debian's and Ubuntu's kernel settings of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from msgspec import Struct

OLDEST_KERNEL = (5, 12)
"""Overlays by ordinary users came with 5.11, mount_setattr(2) with 5.12."""

OTHER = (
    "run the image with Docker or Podman: `torchship save IMAGE -o image.tar`, then "
    "`docker load -i image.tar` or `podman load -i image.tar`"
)
"""What to do where the native engine cannot run."""

_PROBE = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from torchship.engines.syscalls import CLONE_NEWUSER, CLONE_NEWNS, unshare, new_mount; "
    "unshare(CLONE_NEWUSER | CLONE_NEWNS); new_mount('tmpfs', 0)"
)


class Obstacle(Struct, frozen=True):
    """Why containers cannot be started here, and what to do."""

    reason: str
    hint: str


class _Setting(Struct, frozen=True):
    path: Path
    forbids: str
    holds_root: bool
    reason: str
    hint: str


_SETTINGS = (
    _Setting(
        Path("/proc/sys/user/max_user_namespaces"),
        "0",
        True,
        "this machine allows no user namespaces (user.max_user_namespaces is 0)",
        "an administrator can allow them with `sysctl user.max_user_namespaces=15000`",
    ),
    _Setting(
        Path("/proc/sys/kernel/unprivileged_userns_clone"),
        "0",
        False,
        "this machine allows user namespaces to root alone (kernel.unprivileged_userns_clone is 0)",
        "an administrator can allow them with `sysctl kernel.unprivileged_userns_clone=1`",
    ),
    _Setting(
        Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        "1",
        False,
        "AppArmor forbids user namespaces to ordinary programs here, as on Ubuntu since 23.10 "
        "(kernel.apparmor_restrict_unprivileged_userns is 1)",
        "an administrator can allow them with "
        "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
    ),
)


def obstacle() -> Obstacle | None:
    """Try to make a user namespace; return None where it works. Takes about 0.03 s."""
    if sys.platform != "linux":
        return Obstacle("the native engine runs on Linux only", OTHER)
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if release < OLDEST_KERNEL:
        wanted = ".".join(map(str, OLDEST_KERNEL))
        return Obstacle(
            f"the native engine needs Linux {wanted} or later, and this is {os.uname().release}",
            OTHER,
        )
    command = (sys.executable, "-I", "-S", "-c", _PROBE, str(Path(__file__).parents[2]))
    tried = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return None
    return explain(tried.stderr.strip().rpartition("\n")[2])


def explain(found: str) -> Obstacle:
    """Say why a user namespace could not be made; ``found`` is what the kernel answered."""
    for setting in _SETTINGS:
        if os.geteuid() == 0 and not setting.holds_root:
            continue
        try:
            value = setting.path.read_text().strip()
        except FileNotFoundError:
            continue
        if value == setting.forbids:
            return Obstacle(setting.reason, f"{setting.hint}; or {OTHER}")
    return Obstacle(
        f"this machine does not let torchship make a container ({found})",
        f"inside another container, start that one with more rights; or {OTHER}",
    )
