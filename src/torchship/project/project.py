"""The project: a directory with the experiment, and its settings with their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from torchship.digest import Digest
from torchship.platform import Platform

PRUNE = ("torch/test/", "torch/bin/test_*")
"""Left out of wheels by default: torch's own C++ tests, dead weight at run time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """A data file that is baked into the image. ``path`` is absolute, in the image."""

    path: str
    digest: Digest
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Where a metric is found: a key of a JSON file of the output, or a pattern on stdout."""

    name: str
    file: str | None = "metrics.json"
    pattern: str | None = None
    better: str = "higher"
    tolerance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project as `load` reads it: every setting checked, every default filled in."""

    root: Path
    name: str
    command: tuple[str, ...] = ("python", "main.py")
    python: str = "3.11"
    base: str = "debian:bookworm"
    packages: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = (Platform("linux", "amd64"),)
    torch: str = "auto"
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    exclude: tuple[str, ...] = ()
    prune: tuple[str, ...] = PRUNE
    bytecode: str = "imported"
    allow: tuple[str, ...] = ()
    data: tuple[DataFile, ...] = ()
    metrics: tuple[Metric, ...] = ()
