"""Which pins share a layer: the whole image as recipes, from the base up to the source.

The order is that of change: what stays the same for longest is lowest, since Docker names an
unpacked layer after all those below it. Large wheels stand by size, the largest (torch)
lowest; then the buckets by number; each wheel's bytecode stands on the wheel. Where two wheels
hold the same path, the file of the upper layer is the one that is seen.

Unless all bytecode is asked for, only that of the wheels that the project itself requires, and
of those that they are known to bring into a training, is made: docs/decisions/0004-bytecode.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from torchship.errors import PlanError, ProjectError
from torchship.layers import source
from torchship.layers.bytecode import BROUGHT, BytecodeRecipe, DebianBytecodeRecipe
from torchship.layers.data import DataRecipe
from torchship.layers.debian import DebianRecipe
from torchship.layers.layer import Recipe
from torchship.layers.layout import DATA, LayoutRecipe
from torchship.layers.source import SourceFile, SourceRecipe
from torchship.layers.users import UsersRecipe
from torchship.layers.wheel import WheelsRecipe
from torchship.project import builds, requirements
from torchship.project.lock import DataPin, PlatformLock, WheelPin
from torchship.project.names import normalized
from torchship.project.project import WORKSPACE, Project

BUDGET = 110
"""Layers that an image may have. Docker mounts at most 127; the rest is left for images that
are built ``FROM`` this one."""

BUCKETS = 8
"""Layers that the small wheels share. More would be more requests, fewer would be more bytes
for one version's bump."""

APART = BUCKETS
"""The number of one more bucket, for the small wheels that only GPU builds of torch bring: so the
others are the same layers in an image for the CPU and in one for CUDA."""

LARGE = 1 << 20
"""Bytes from which a wheel gets a layer of its own, while the budget lasts."""


def plan(
    project: Project,
    pins: PlatformLock,
    data: Sequence[DataPin],
    *,
    base_layers: int = 0,
    interpreter: str = "",
    users: UsersRecipe | None = None,
) -> tuple[Recipe, ...]:
    """Return the recipe of every layer, lowest first.

    ``base_layers`` are already there, and ``interpreter`` is its Python, where the image stands
    on a published one, to which ``users`` adds the run user; else the first recipe makes the base.
    Raises `PlanError`, `ProjectError` where a file of the project would hide another that is
    pinned, and what `source.collect` raises.
    """
    below: tuple[Recipe, ...] = ()
    compiled = project.bytecode != "none"
    if pins.base.digest is None:
        suite = pins.base.reference.partition(":")[2]
        below += (DebianRecipe(suite=suite, packages=pins.base.packages),)
        if compiled:
            below += (
                DebianBytecodeRecipe(
                    packages=pins.base.packages, python=pins.python, mode=project.bytecode
                ),
            )
    below += (users,) if users is not None else ()
    baked = any(f"{pin.path}/".startswith(f"{DATA}/") for pin in data)
    further = () if baked else (DATA,)
    below += (LayoutRecipe(python=pins.python, interpreter=interpreter, further=further),)
    above = tuple(DataRecipe(pin=pin) for pin in sorted(data, key=lambda pin: pin.path))
    tree = source.collect(project.root, exclude=project.exclude, allow=project.allow)
    named = _compiled(project)
    spent = base_layers + len(below) + len(above) + 1
    return (
        *below,
        *(
            recipe
            for wheels in share(pins.wheels, room=(BUDGET - spent) // (2 if compiled else 1))
            for recipe in _of_wheels(wheels, project, pins.python, named)
        ),
        *above,
        SourceRecipe(root=project.root, files=_beside(data, tree.files), caches=tree.caches),
    )


def share(wheels: Iterable[WheelPin], *, room: int) -> tuple[tuple[WheelPin, ...], ...]:
    """Divide wheels into at most ``room`` groups: the large ones alone, the rest in buckets.

    A wheel's bucket depends on its name only, so that a new version of a small wheel changes
    one bucket and nothing else. Empty buckets are left out. Raises `PlanError`.
    """
    ordered = sorted(wheels, key=lambda pin: (-pin.size, pin.name, pin.filename))
    if room < min(BUCKETS + 1, len(ordered)):
        raise PlanError(
            f"an image has room for {BUDGET} layers, and the base and the data leave too few",
            hint="use a base image of fewer layers, or pack the data files into one",
        )
    alone = [pin for pin in ordered if pin.size >= LARGE][: max(0, room - BUCKETS - 1)]
    buckets: list[list[WheelPin]] = [[] for _ in range(BUCKETS + 1)]
    for pin in ordered[len(alone) :]:
        buckets[bucket(pin.name)].append(pin)
    shared = (tuple(sorted(pins, key=lambda pin: pin.name)) for pins in buckets if pins)
    return (*((pin,) for pin in alone), *shared)


def bucket(name: str) -> int:
    """Return which bucket a distribution falls into, by its normalised name, for ever."""
    name = normalized(name)
    if builds.is_accelerators(name):
        return APART
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % BUCKETS


def _beside(data: Sequence[DataPin], files: tuple[SourceFile, ...]) -> tuple[SourceFile, ...]:
    """Return the files of the source less the author's own copies of what is pinned.

    The source is the upper layer: another file there would be seen instead of the pinned one.
    """
    top = f"{WORKSPACE}/"
    pinned = {pin.path.removeprefix(top): pin for pin in data if pin.path.startswith(top)}
    if not pinned:
        return files
    above = {parent: pin for path, pin in pinned.items() for parent in _parents(path)}
    kept, faults = [], []
    for file in files:
        hidden = pinned.get(file.path)
        if hidden is not None and hidden.digest == file.digest:
            continue
        if hidden is None and not file.is_folder:
            hidden = above.get(file.path)
        if hidden is None:
            hidden = next((pinned[path] for path in _parents(file.path) if path in pinned), None)
        if hidden is not None:
            faults.append(f"{file.path} and the data file {hidden.path}")
        kept.append(file)
    if faults:
        raise ProjectError(
            f"the project's own file would be seen instead of the pinned one: {'; '.join(faults)}",
            hint="name it in .dockerignore, or correct the data's path or sha256 in "
            "[[tool.torchship.data]]",
        )
    return tuple(kept)


def _parents(path: str) -> tuple[str, ...]:
    return tuple(path[:at] for at, char in enumerate(path) if char == "/")


def _compiled(project: Project) -> frozenset[str] | None:
    """Return the names of the wheels that are compiled; None: every one is."""
    if project.bytecode == "none":
        return frozenset()
    named = requirements.read(project).names
    if project.bytecode == "all" or named is None:
        return None
    return named.union(*(BROUGHT.get(name, ()) for name in named))


def _of_wheels(
    wheels: tuple[WheelPin, ...], project: Project, python: str, named: frozenset[str] | None
) -> tuple[Recipe, ...]:
    installed = WheelsRecipe(wheels=wheels, python=python, prune=project.prune)
    compiled = tuple(pin for pin in wheels if named is None or pin.name in named)
    if not compiled:
        return (installed,)
    return (
        installed,
        BytecodeRecipe(wheels=compiled, python=python, prune=project.prune, mode=project.bytecode),
    )
