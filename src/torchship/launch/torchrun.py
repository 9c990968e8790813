"""The command that starts a program's processes on each node: PyTorch's own ``torchrun``.

Source: torch.distributed.run (its options; each may be given as a variable ``PET_<OPTION>``,
torch/distributed/argparse_util.py). What is the same on every node stands in the command; what a
node only learns from its cluster, it is given as variables.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchship.launch.job import Shape

NODE_RANK = "PET_NODE_RANK"
"""The variable that must hold a node's place among the nodes: 0 for the one that leads."""

HEAD = "PET_MASTER_ADDR"
"""The variable that must hold the name or address of the node of rank 0, as the others see it."""

PROGRAM = "torchrun"

_PYTHON = re.compile(r"python(?:3(?:\.[0-9]+)?)?")

_MEETING_ANEW = """\
if [ "${TORCHELASTIC_RESTART_COUNT:-0}" != 0 ]; then
    export MASTER_PORT=$((MASTER_PORT + TORCHELASTIC_RESTART_COUNT))
    export TORCHELASTIC_USE_AGENT_STORE=False
fi
exec "$@"
"""
"""What starts each process where processes may be started again.

torchrun's store outlives the processes (StaticTCPRendezvous keeps it), with the addresses of those
that died in it, which the new ones would take for each other's. So those meet at a store that the
process of rank 0 opens (``_create_c10d_store`` of torch/distributed/rendezvous.py), one port up
for each attempt.
"""


def command(words: tuple[str, ...], shape: Shape) -> tuple[str, ...]:
    """Return the argv of one node, the same on all of them.

    ``python main.py`` becomes ``torchrun ... main.py``, ``python -m package`` ``torchrun ... -m
    package``; any other program is started as it is, with torchrun's variables. A command that
    is torchrun's already keeps its options, which count where they say something else. Where
    processes may be started again, the shell starts them, to let them meet at a port of their own.
    """
    options = (
        f"--nnodes={shape.nodes}",
        f"--nproc-per-node={shape.processes}",
        f"--max-restarts={shape.max_restarts}",
        f"--master-port={shape.port}",
    )
    first, rest = words[0], words[1:]
    if posixpath.basename(first) == PROGRAM:
        return (first, *options, *rest)
    python = bool(_PYTHON.fullmatch(posixpath.basename(first)) and rest)
    if python and rest[0] == "-u":
        rest = rest[1:]  # torchrun starts Python unbuffered anyway
    if shape.max_restarts:
        started = (first, "-u", *rest) if python else words
        return (PROGRAM, *options, "--no-python", "sh", "-c", _MEETING_ANEW, "meet", *started)
    if python and rest and (rest[0] == "-m" or not rest[0].startswith("-")):
        return (PROGRAM, *options, *rest)
    return (PROGRAM, *options, "--no-python", *words)
