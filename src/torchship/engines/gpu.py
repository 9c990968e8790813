"""GPUs: which ones a program gets, and how each engine is told so."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from torchship.errors import EngineError, UsageError

if TYPE_CHECKING:  # a run without a GPU loads none of these
    from torchship.engines.cdi import Registry
    from torchship.engines.injection import Injection
    from torchship.engines.nvidia import Machine

AUTO, NONE, ALL = "auto", "none", "all"

_DEVICE = re.compile(r"(?:[0-9]{1,3}(?::[0-9]{1,2})?|(?:GPU|MIG)-[0-9A-Za-z/-]{1,80})")
_MOST = 128


class Gpus(Struct, frozen=True, kw_only=True):
    """Which GPUs of the machine a program gets.

    ``amount`` is `AUTO`, `NONE`, `ALL`, or a number of GPUs, the first ones; it is None where
    ``devices`` names them, by index (``0``, ``0:1`` for a MIG device) or UUID. `AUTO` is a wish
    of the command line: `decide` turns it into `ALL` or `NONE` before an engine is asked.
    """

    amount: str | int | None = NONE
    devices: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Gpus:
        """Read ``auto``, ``none``, ``all``, a number, or ``device=0,1`` as Docker takes it.

        Raises `UsageError`.
        """
        if text in (AUTO, NONE, ALL):
            return cls(amount=text)
        if text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= _MOST:
            return cls(amount=int(text) or NONE)
        key, _, listed = text.partition("=")
        names = tuple(listed.split(","))
        if key == "device" and all(_DEVICE.fullmatch(name) for name in names):
            return cls(amount=None, devices=tuple(dict.fromkeys(names)))
        raise UsageError(
            f"--gpus {text!r} is not auto, none, all, a number, or device=0,1",
            hint="one GPU: --gpus 1; the second one: --gpus device=1",
        )

    def __bool__(self) -> bool:
        """Tell whether any GPU is asked for (`AUTO` is not decided yet, and asks for none)."""
        return self.amount not in (AUTO, NONE)

    def __str__(self) -> str:
        return str(self.amount) if self.amount is not None else f"device={','.join(self.devices)}"

    def named(self, registry: Registry) -> tuple[str, ...]:
        """Return these GPUs by the names of CDI devices; raise `EngineError` for too many."""
        from torchship.engines.nvidia import KIND

        if self.amount is None:
            return self.devices
        there = registry.names(KIND)
        if not there:
            raise registry.missing(KIND, ALL)
        if self.amount == ALL:
            return (ALL,) if ALL in there else there
        first = [name for name in there if name.isdigit()] or [
            name for name in there if name != ALL
        ]
        assert isinstance(self.amount, int)
        if len(first) < self.amount:
            raise _too_few(self.amount, len(first), "the CDI specifications name")
        return tuple(first[: self.amount])


class Decision(Struct, frozen=True, kw_only=True):
    """What a program gets: never `AUTO`. ``said`` is what the user is to be told of it."""

    gpus: Gpus
    said: str | None = None


def decide(
    wish: Gpus, cuda: str | None, engine: str, machine: Machine, *, checked: bool = True
) -> Decision:
    """Decide which GPUs a program gets, before anything is pulled.

    ``cuda`` is the version that the image has, None where it has none; ``engine`` is one's
    name. Raises `EngineError` where what was asked for cannot be had, and where the driver is
    too old for the image, unless that is not to be ``checked``.
    """
    from torchship.engines.nvidia import check_driver

    if wish.amount == NONE or (wish.amount == AUTO and cuda is None):
        return Decision(gpus=Gpus(amount=NONE))
    if wish.amount == AUTO:
        if not machine.gpus:
            return Decision(
                gpus=Gpus(amount=NONE),
                said="this machine has no NVIDIA GPU: the program runs on the CPU",
            )
        if checked:
            check_driver(cuda, machine)
        lacking = lack(engine, machine)
        if lacking is None:
            return Decision(gpus=Gpus(amount=ALL))
        return Decision(
            gpus=Gpus(amount=NONE),
            said=f"{lacking.message}: the program runs on the CPU (to use the GPU: {lacking.hint})",
        )
    if (lacking := lack(engine, machine)) is not None:
        raise lacking
    if checked:
        check_driver(cuda, machine)
    if isinstance(wish.amount, int) and 0 < len(machine.gpus) < wish.amount:
        raise _too_few(wish.amount, len(machine.gpus), "this machine has")
    return Decision(gpus=wish)


def lack(engine: str, machine: Machine) -> EngineError | None:
    """Say what an engine lacks to pass GPUs on, with the fix; None where it lacks nothing."""
    from torchship.engines import driver
    from torchship.engines.nvidia import GENERATE, INSTALL, KIND

    found = registry()
    specified = bool(found.names(KIND))
    if not machine.gpus and not specified:
        if machine.driver is not None:
            return EngineError(
                f"NVIDIA driver {machine.driver} is loaded, and finds no GPU (no /dev/nvidia0)",
                hint="`sudo nvidia-modprobe -c 0 -u` makes the device nodes; "
                "`nvidia-smi` tells what the driver sees",
            )
        return EngineError(
            "this machine has no NVIDIA GPU, or no driver for it (no /dev/nvidia0)",
            hint="install NVIDIA's driver, or run on the CPU with --gpus none",
        )
    usable = specified or driver.registry(machine) is not None
    instead = "; or --engine native, which finds the driver by itself" if usable else ""
    if engine == "docker" and not (specified or machine.runtime_hook or machine.cdi_hook):
        return EngineError(
            "Docker has no way to pass GPUs on: NVIDIA's container toolkit is not installed",
            hint=f"{INSTALL}, then `sudo nvidia-ctk runtime configure --runtime=docker` "
            f"and `sudo systemctl restart docker`{instead}",
        )
    if engine != "docker" and not specified and found.faults:
        return found.missing(KIND, ALL)
    generate = f"`{GENERATE}`" if machine.ctk else f"{INSTALL}, then `{GENERATE}`"
    if engine == "podman" and not specified:
        return EngineError(
            f"Podman passes GPUs on by CDI, and no specification of {KIND} is here",
            hint=f"{generate}{instead}",
        )
    if engine == "native" and not usable:
        return EngineError(
            f"the native engine passes GPUs on by CDI, and no specification of {KIND} is here",
            hint=generate,
        )
    return None


def registry(environment: Mapping[str, str] = os.environ) -> Registry:
    """Read the machine's CDI specifications."""
    from torchship.engines import cdi

    return cdi.Registry.load(cdi.directories(environment))


def docker_arguments(gpus: Gpus) -> tuple[str, ...]:
    """Return what ``docker run`` takes for these GPUs; raise `EngineError`.

    ``--gpus`` is done by the toolkit's hook, and by Docker 29 and later by CDI; where only CDI
    specifications are here, the devices are named, which Docker takes since 25. No GPU has to be
    said, too: where NVIDIA's runtime is Docker's default, it goes by the image's variables.
    """
    from torchship.engines.nvidia import KIND, survey

    machine = survey()
    if not gpus:
        return ("--env", "NVIDIA_VISIBLE_DEVICES=void") if machine.runtime_hook else ()
    found = registry()
    if found.names(KIND) and not machine.runtime_hook:
        return _devices(gpus.named(found))
    if gpus.amount is not None:
        return ("--gpus", str(gpus.amount))
    # The quotes are for Docker's own reader of comma-separated values
    return ("--gpus", f'"device={",".join(gpus.devices)}"')


def podman_arguments(gpus: Gpus) -> tuple[str, ...]:
    """Return what ``podman run`` takes for these GPUs, named by CDI; raise `EngineError`."""
    if not gpus:
        return ()
    return _devices(gpus.named(registry()))


def native_injection(gpus: Gpus) -> Injection:
    """Return what the native engine does for these GPUs; raise `EngineError`.

    Where no specification names a GPU, the driver's own files are taken.
    """
    from torchship.engines.injection import Injection, inject

    if not gpus:
        return Injection()
    from torchship.engines import driver
    from torchship.engines.nvidia import KIND, survey

    found = registry()
    if not found.names(KIND) and not found.faults:
        found = driver.registry(survey()) or found
    return inject(found.edits(KIND, gpus.named(found)))


def _devices(names: tuple[str, ...]) -> tuple[str, ...]:
    from torchship.engines.nvidia import KIND

    return tuple(word for name in names for word in ("--device", f"{KIND}={name}"))


def _too_few(wanted: int, found: int, where: str) -> EngineError:
    return EngineError(
        f"{wanted} GPUs are asked for, and {where} {found}",
        hint=f"ask for fewer: --gpus {found}" if found else "run on the CPU with --gpus none",
    )
