"""GPUs: which ones a program gets, and how each engine is told so."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torchship.errors import UsageError

AUTO, NONE, ALL = "auto", "none", "all"

_DEVICE = re.compile(r"(?:[0-9]{1,3}(?::[0-9]{1,2})?|(?:GPU|MIG)-[0-9A-Za-z/-]{1,80})")
_MOST = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """Which GPUs of the machine a program gets.

    ``amount`` is `AUTO`, `NONE`, `ALL`, or a number of GPUs, the first ones; it is None where
    ``devices`` names them, by index (``0``, ``0:1`` for a MIG device) or UUID. `AUTO` is a wish
    of the command line: `decided` turns it into `ALL` or `NONE` before an engine is asked.
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


def docker_arguments(gpus: Gpus) -> tuple[str, ...]:
    """Return what `docker run` takes for these GPUs; raise `EngineError` where it cannot."""
    if not gpus:
        return ()
    if gpus.amount is not None:
        return ("--gpus", str(gpus.amount))
    # The quotes are for docker's own reader of comma-separated values
    return ("--gpus", f'"device={",".join(gpus.devices)}"')


def podman_arguments(gpus: Gpus) -> tuple[str, ...]:
    """Return what `podman run` takes for these GPUs; raise `EngineError` where it cannot."""
    if not gpus:
        return ()
    if isinstance(gpus.amount, int):
        names = tuple(str(number) for number in range(gpus.amount))
    else:
        names = gpus.devices or (ALL,)
    return tuple(word for name in names for word in ("--device", f"nvidia.com/gpu={name}"))
