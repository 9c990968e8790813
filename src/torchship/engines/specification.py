"""What goes into the sandbox from outside: plain values only, for `marshal`."""

from __future__ import annotations

from typing import TypedDict


class RootSpecification(TypedDict):
    """Where the root file system comes from."""

    scratch: str
    """A folder of the run: ``l`` (links 0, 1, ... to the layers, topmost first), ``upper``,
    ``work``, ``root``."""
    layers: int
    shared_memory: int
    """Size limit of ``/dev/shm`` in bytes."""
    mounts: list[tuple[str, str, int]]
    """Host path, path in the container, and the attributes of `syscalls` that restrict it."""
    devices: list[tuple[str, str]]
    """Device node of the host, and its path in the container."""
    files: dict[str, bytes]
    """Files written into the container before the program starts: ``/etc/hosts``, ..."""
    links: dict[str, str]
    """Symlinks made in the container, by path, with their targets."""
    folders: list[str]
    """Folders made where the image lacks them."""


class Specification(TypedDict):
    """What a container is."""

    uid: int
    gid: int
    hostname: str
    network: bool
    root: RootSpecification
    command: list[bytes]
    environment: dict[bytes, bytes]
    workdir: bytes
    terminal: tuple[int, int] | None
    """Rows and columns of the terminal to make; None: standard streams are inherited."""
    processors: list[int] | None
