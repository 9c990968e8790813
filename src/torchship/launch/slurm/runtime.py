"""What runs containers on a cluster's nodes, by what can be seen from where jobs are submitted."""

from __future__ import annotations

import shutil

from torchship.errors import EngineError
from torchship.launch.slurm import queue

RUNTIMES = ("oci", "apptainer", "podman", "docker")
"""In the order in which they are looked for."""

_CONFIGURED = "oci.conf"
"""Beside slurm.conf where ``srun --container`` works (Slurm, "Containers Guide")."""


def found() -> str:
    """Return the first that there is; raise `EngineError` where there is none.

    Nodes are taken to be like this machine. Without ``oci.conf``, Slurm would ignore
    ``--container``, and run the command on the node itself.
    """
    configuration = queue.configuration()
    if configuration is not None and (configuration.parent / _CONFIGURED).is_file():
        return RUNTIMES[0]
    for name in RUNTIMES[1:]:
        if shutil.which(name) is not None:
            return name
    raise EngineError(
        "this cluster runs no containers, as far as can be seen from here: there is no "
        f"{_CONFIGURED} beside Slurm's configuration, and none of {', '.join(RUNTIMES[1:])}",
        hint="if its nodes have one of them, name it: --with oci|apptainer|podman|docker",
    )
