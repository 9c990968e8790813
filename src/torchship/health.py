"""What a machine has and lacks for building and running; each lack with its fix."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from torchship.amounts import size
from torchship.engines.gpu import lack, registry
from torchship.engines.nvidia import KIND, Machine, newest_cuda, survey
from torchship.errors import TorchshipError, UsageError
from torchship.oci.store import Store
from torchship.platform import Platform

ENOUGH = 4_000_000_000
"""Bytes that an image with torch takes at most: wheels, layers, and the layers unpacked."""


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at. ``fix`` is None where nothing is wrong.

    ``usable`` is false for what is not there, or cannot be used, and is not needed.
    """

    subject: str
    state: str
    fix: str | None = None
    usable: bool = True


def examine(store: Store) -> Iterator[Finding]:
    """Look at the machine; every finding is made on its own, so that one fault hides no other."""
    yield _machine()
    yield _space(store.home)
    yield _base()
    yield _native(store)
    yield from _container_engines(store)
    yield from _gpus(survey())
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
    from torchship.project import apt
    from torchship.project.project import BASE

    missing = apt.lacking(BASE.removeprefix("debian:"))
    if missing is None:
        return Finding(subject="debian packages", state="resolved by apt-get")
    return Finding(
        subject="debian packages",
        state=f"{missing}: a lock of them cannot be made here",
        fix=f"new locks take python:3.11-slim instead; to build what a lock of {BASE} pins, set "
        "TORCHSHIP_DEBIAN_MIRROR to the root of a Debian mirror",
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


def _container_engines(store: Store) -> Iterator[Finding]:
    from torchship.engines.docker import Docker
    from torchship.engines.podman import Podman

    for engine in (Docker(store), Podman(store)):
        if shutil.which(engine.name) is None:
            lacking: str | None = "not installed; not needed to build or to run"
        else:
            # One that is there and cannot be used is no fault: the next engine is taken
            lacking = engine.missing()
        yield Finding(subject=engine.name, state=lacking or "runs images", usable=lacking is None)


def _gpus(machine: Machine) -> Iterator[Finding]:
    """Say what there is for GPUs; on a machine without one, one line."""
    try:
        found = registry()
    except TorchshipError as error:
        yield Finding(subject="cdi", state=error.message, fix=error.hint or "look at its rights")
        return
    yield _driver(machine)
    for fault in found.faults:
        yield Finding(subject="cdi", state=fault.message, fix=fault.hint)
    names = found.names(KIND)
    if names:
        files = ", ".join(str(path) for path, one in found.files.items() if one.kind == KIND)
        yield Finding(subject="cdi", state=f"{files}: {KIND}={', '.join(names)}")
    if not machine.gpus and not names:
        return
    programs = [each for each in (machine.ctk, machine.runtime_hook, machine.cdi_hook) if each]
    yield Finding(
        subject="container toolkit",
        state=", ".join(map(str, programs)) or "not installed",
    )
    for engine in ("docker", "podman", "native"):
        lacking = lack(engine, machine)
        yield Finding(
            subject=f"gpus on {engine}",
            state="can be passed on" if lacking is None else lacking.message,
            fix=None if lacking is None else lacking.hint,
        )


def _driver(machine: Machine) -> Finding:
    if not machine.gpus:
        lacking = None if machine.driver is None else lack("native", machine)
        if lacking is None:
            return Finding(subject="gpu", state="no NVIDIA GPU; programs run on the CPU")
        return Finding(subject="gpu", state=lacking.message, fix=lacking.hint)
    nodes = ", ".join(map(str, machine.gpus))
    if machine.driver is None:
        return Finding(
            subject="gpu",
            state=f"{nodes}; the driver does not tell its version",
            fix="`nvidia-smi` tells whether the driver works",
        )
    newest = newest_cuda(machine.driver)
    runs = f"runs images of CUDA {newest} and older" if newest else "is older than CUDA 11 needs"
    return Finding(
        subject="gpu",
        state=f"{nodes}; driver {machine.driver} {runs}",
        fix=None if newest else "update the driver",
    )


def _mirrors() -> Finding:
    from torchship.project.fetch.mirrors import VARIABLE, Mirrors

    named = os.environ.get(VARIABLE)
    if not named:
        return Finding(subject="mirrors", state=f"none ({VARIABLE} is not set)")
    try:
        Mirrors.from_environment()
    except TorchshipError as error:
        return Finding(subject="mirrors", state=error.message, fix=error.hint)
    return Finding(subject="mirrors", state=named)
