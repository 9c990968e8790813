"""Which variant of an image suits a machine: CUDA's where a GPU can be used, else the CPU's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torchship.engines.gpu import AUTO, NONE, Gpus, lack
from torchship.errors import EngineError
from torchship.project import builds

if TYPE_CHECKING:
    from torchship.engines.nvidia import Machine


def suited(
    offered: Sequence[str], *, wish: Gpus, engine: str, machine: Machine, checked: bool = True
) -> str:
    """Return the variant to take of those that an image offers, one at least.

    For a GPU, the newest CUDA that the machine's driver runs, or the newest where the driver is
    not to be ``checked``; where GPUs are asked for and the driver runs none, the oldest, so that
    the engine tells what is missing. Otherwise the CPU's; where there is none, the first.
    """
    versions = {name: builds.cuda(name) for name in offered}
    newest = sorted(
        (name for name, version in versions.items() if version),
        key=lambda name: versions[name] or (),
        reverse=True,
    )
    if newest and _uses_gpu(wish, engine, machine):
        fitting = [name for name in newest if not checked or _runs(versions[name], machine)]
        if fitting:
            return fitting[0]
        if wish:
            return newest[-1]
    return builds.CPU if builds.CPU in offered else offered[0]


def _uses_gpu(wish: Gpus, engine: str, machine: Machine) -> bool:
    if wish.amount == AUTO:
        return bool(machine.gpus) and lack(engine, machine) is None
    return wish.amount != NONE


def _runs(version: tuple[int, int] | None, machine: Machine) -> bool:
    from torchship.engines.nvidia import check_driver

    try:
        check_driver(".".join(map(str, version or ())), machine)
    except EngineError:
        return False
    return True
