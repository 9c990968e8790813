"""What a machine has and lacks for building and running; each lack with its fix."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torchship.display import size
from torchship.errors import TorchshipError, UsageError
from torchship.oci.store import Store
from torchship.platform import Platform

ENOUGH = 4_000_000_000
"""Bytes that an image with torch takes at most: wheels, layers, and the layers unpacked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. ``fix`` is None where nothing is wrong."""

    subject: str
    state: str
    fix: str | None = None


def examine(store: Store) -> Iterator[Finding]:
    """Look at the machine; every finding is made on its own, so that one fault hides no other."""
    yield _machine()
    yield _space(store.home)
    yield _base()
    yield _native(store)
    for name in ("docker", "podman"):
        yield _program(name)
    yield _mirrors()


def _machine() -> Finding:
    python = sys.version.split()[0]
    try:
        return Finding(subject="python", state=f"{python} on {Platform.host()}")
    except UsageError as error:
        return Finding(
            subject="python",
            state=f"{python}; {error.message}",
            fix="use a machine of one of these architectures: torch has no wheels for others",
        )


def _space(store: Path) -> Finding:
    present = next(path for path in (store, *store.parents) if path.exists())
    free = shutil.disk_usage(present).free
    writable = os.access(present, os.W_OK)
    fix = None
    if not writable:
        fix = f"make {present} writable, or name another folder in TORCHSHIP_HOME"
    elif free < ENOUGH:
        fix = f"free some space: an image with torch takes up to {size(ENOUGH)}"
    return Finding(subject="store", state=f"{store}, {size(free)} free", fix=fix)


def _base() -> Finding:
    if shutil.which("apt-get"):
        return Finding(subject="debian packages", state="resolved by apt-get")
    return Finding(
        subject="debian packages",
        state="no apt-get here: a lock for base = debian:... is read, and cannot be made",
        fix="new locks take python:3.11-slim instead; or make the lock on Debian or Ubuntu",
    )


def _native(store: Store) -> Finding:
    from torchship.engines.namespaces import OTHER
    from torchship.engines.native import Native

    missing = Native(store).missing()
    if missing is None:
        return Finding(
            subject="native engine",
            state="runs images without Docker or root (no seccomp filter, no cgroup limits)",
        )
    return Finding(subject="native engine", state=missing, fix=OTHER)


def _program(name: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(subject=name, state="not installed; not needed to build or to run")
    return Finding(subject=name, state=path)


def _mirrors() -> Finding:
    from torchship.project.mirrors import VARIABLE, Mirrors

    named = os.environ.get(VARIABLE)
    if not named:
        return Finding(subject="mirrors", state=f"none ({VARIABLE} is not set)")
    try:
        Mirrors.from_environment()
    except TorchshipError as error:
        return Finding(subject="mirrors", state=error.message, fix=error.hint)
    return Finding(subject="mirrors", state=named)
