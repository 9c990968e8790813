"""``/etc/hosts`` of a container: its own name leads to an address at which it can be reached.

Gloo, which PyTorch's processes on several machines talk by, listens at the address that the
machine's own name leads to; where it leads nowhere, or to loopback, no other machine gets there
(torch/csrc/distributed/c10d/ProcessGroupGloo.cpp, createDefaultDevice).
"""

from __future__ import annotations

import socket
from pathlib import Path

HOSTS = Path("/etc/hosts")

_LOOPBACK = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"

# Addresses for documentation (RFC 5737, RFC 3849): nobody has them, and the way to them is the
# way to everybody
_ANYWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def alone(name: str) -> str:
    """Return the table of a container without a network: its name is its loopback's."""
    return f"{_LOOPBACK}127.0.0.1 {name}\n"


def with_network(name: str) -> str:
    """Return the machine's own table, and ``name`` at the address that other machines see."""
    table = HOSTS.read_text("utf-8", "surrogateescape") if HOSTS.exists() else _LOOPBACK
    return f"{table.rstrip()}\n{address() or '127.0.0.1'} {name}\n"


def address() -> str | None:
    """Return the address that this machine has for others; None without a way to any."""
    for family, somewhere in _ANYWHERE:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((somewhere, 9))  # of datagrams this sends nothing: it asks the way
            except OSError:
                continue
            return str(probe.getsockname()[0])
    return None
