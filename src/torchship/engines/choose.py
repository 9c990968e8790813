"""Which engine runs an image."""

from __future__ import annotations

import sys
from pathlib import Path

from torchship.engines import namespaces
from torchship.engines.request import Engine
from torchship.errors import EngineError, UsageError
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT, Progress

AUTO = "auto"
_FORMATS = Path("/proc/sys/fs/binfmt_misc")


NAMES = (AUTO, "docker", "podman", "native")


def engines(store: Store, progress: Progress = SILENT) -> tuple[Engine, ...]:
    """Return every engine there is, in the order in which they are tried."""
    return tuple(_engine(name, store, progress) for name in NAMES if name != AUTO)


def _engine(name: str, store: Store, progress: Progress) -> Engine:
    # Imported here: a run has one engine, and waits for what the others would import.
    if name == "docker":
        from torchship.engines.docker import Docker

        return Docker(store, progress=progress)
    if name == "podman":
        from torchship.engines.podman import Podman

        return Podman(store, progress=progress)
    from torchship.engines.native import Native

    return Native(store, progress=progress)


def choose(name: str, store: Store, *, progress: Progress = SILENT) -> Engine:
    """Return the engine of that name; ``auto`` takes the first that can run here.

    Raises `EngineError` that says what each one lacks, `UsageError` for an unknown name.
    """
    if name not in NAMES:
        raise UsageError(f"there is no engine {name!r}", hint=f"use one of {', '.join(NAMES)}")
    if name != AUTO:
        return _engine(name, store, progress)
    lacks = []
    for engine in engines(store, progress):
        reason = engine.missing()
        if reason is None:
            return engine
        lacks.append(f"{engine.name}: {reason}")
    raise EngineError(
        "no engine can run an image here: " + "; ".join(lacks),
        hint=found.hint if (found := namespaces.obstacle()) else namespaces.OTHER,
    )


def check_platform(engine: Engine, platform: Platform) -> None:
    """Raise `EngineError` where an engine cannot start programs for a platform.

    Docker and Podman start those of another machine where Linux has been told of an emulator.
    """
    if platform.is_host or sys.platform != "linux":  # elsewhere a virtual machine has emulators
        return
    machine = f"this machine runs {Platform.host()}"
    if engine.name == "native":
        raise EngineError(
            f"the native engine runs nothing for {platform}: {machine}",
            hint=f"leave out --platform; `torchship build --platform {platform}` builds for it",
        )
    # binfmt_misc(5, kernel documentation): one file for each format that is registered
    if _FORMATS.is_dir() and not (_FORMATS / f"qemu-{platform.machine}").exists():
        raise EngineError(
            f"{engine.name} runs nothing for {platform} here: {machine}, and has no emulator "
            "registered",
            hint="install one (Debian: qemu-user-static), or leave out --platform",
        )
