"""Which CUDA an image has, told by the image itself, before any layer of it is read.

Sources: the names of the CUDA runtime's wheels on the package index, the local versions of
PyTorch's own (``+cu130``), and the variable that NVIDIA's base images set (``CUDA_VERSION``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from torchship.layers.layer import ORIGIN, Layer

LABEL = "dev.torchship.cuda"
"""Label: the version of CUDA that the image's programs are made for, as ``13.0``."""

_WHEEL = re.compile(r"wheel:([^\s@]+)@")
_RUNTIME = re.compile(r"nvidia_cuda_runtime(?:_cu\d+)?-(\d{1,3}\.\d{1,3})\.")
_TORCH = re.compile(r"torch-[^-]+\+cu(\d{2,3})(\d)-")
_VERSION = re.compile(r"(\d{1,3}\.\d{1,3})(?:\.\d+)*")


class Described(Protocol):
    """An image, as far as is looked at here."""

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of its config."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of its config."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Its layers, with the annotations of its manifest."""


def of_wheels(filenames: Iterable[str]) -> str | None:
    """Return the version of CUDA, as ``13.0``, whose runtime is among wheels; None where none is.

    The runtime's own wheel counts before torch's: a torch of the default index does not say.
    """
    names = tuple(filenames)
    for name in names:
        if found := _RUNTIME.match(name):
            return found[1]
    for name in names:
        if found := _TORCH.match(name):
            return f"{found[1]}.{found[2]}"
    return None


def of_layers(layers: Iterable[Layer]) -> str | None:
    """Return the version of CUDA that is among the wheels which layers say they hold."""
    origins = (layer.annotations.get(ORIGIN, "") for layer in layers)
    return of_wheels(name for origin in origins for name in _WHEEL.findall(origin))


def of_image(image: Described) -> str | None:
    """Return the version of CUDA that an image says it has; None where it says of none."""
    for said in (image.labels.get(LABEL, ""), image.environment.get("CUDA_VERSION", "")):
        if found := _VERSION.fullmatch(said):
            return found[1]
    return of_layers(image.layers)
