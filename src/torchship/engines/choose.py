"""Which engine runs an image."""

from __future__ import annotations

from torchship.engines import namespaces
from torchship.engines.docker import Docker
from torchship.engines.native import Native
from torchship.engines.podman import Podman
from torchship.engines.request import Engine
from torchship.errors import EngineError, UsageError
from torchship.oci.store import Store
from torchship.progress import SILENT, Progress

AUTO = "auto"


NAMES = (AUTO, "docker", "podman", "native")


def engines(store: Store, progress: Progress = SILENT) -> tuple[Engine, ...]:
    """Return every engine there is, in the order in which they are tried."""
    return (
        Docker(store, progress=progress),
        Podman(store, progress=progress),
        Native(store),
    )


def choose(name: str, store: Store, *, progress: Progress = SILENT) -> Engine:
    """Return the engine of that name; ``auto`` takes the first that can run here.

    Raises `EngineError` that says what each one lacks, `UsageError` for an unknown name.
    """
    known = engines(store, progress)
    if name != AUTO:
        for engine in known:
            if engine.name == name:
                return engine
        names = ", ".join((AUTO, *(engine.name for engine in known)))
        raise UsageError(f"there is no engine {name!r}", hint=f"use one of {names}")
    lacks = []
    for engine in known:
        reason = engine.missing()
        if reason is None:
            return engine
        lacks.append(f"{engine.name}: {reason}")
    raise EngineError(
        "no engine can run an image here: " + "; ".join(lacks),
        hint=found.hint if (found := namespaces.obstacle()) else namespaces.OTHER,
    )
