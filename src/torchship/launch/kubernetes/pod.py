"""The pod that runs one node of a job: its container, its volumes, who it runs as.

Source: Kubernetes API reference, "Pod v1 core"; "Pod Security Standards", whose profile
"restricted" these pods meet.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from torchship.launch.job import Job
from torchship.launch.kubernetes.settings import Settings

Object = dict[str, Any]
"""A part of a manifest, as JSON has it."""

LABEL = "dev.torchship.job"
"""On all that a job consists of; its value is the job's name in the cluster."""

HOLD = 600
"""Seconds for which the pod of index 0 is kept when its program has ended."""

GRACE = 30
"""Seconds that a program has from SIGTERM to SIGKILL, and what it wrote to be fetched."""

_USER = 1000  # as layers.layout has it in every image of ours
_GPU = "nvidia.com/gpu"
_UNITS = (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))
_SHARED, _OUTPUT = "shared-memory", "output"


def labels(name: str) -> Object:
    """Return the labels of every object of a job."""
    return {"app.kubernetes.io/managed-by": "torchship", LABEL: name}


def command(job: Job, name: str) -> list[str]:
    """Return the container's command: the job's own, under the script that keeps the pod."""
    kept = job.output is not None
    script = (files(__package__) / "scripts" / "hold.py").read_text()
    words = ["python3", "-c", script, name, str(HOLD if kept else 0), "keep" if kept else "drop"]
    return [literal(word) for word in (*words, *job.command)]


def environment(job: Job) -> list[Object]:
    """Return the variables that are set on top of the image's."""
    return [{"name": key, "value": literal(value)} for key, value in job.environment.items()]


def resources(job: Job) -> Object:
    """Return requests and limits, which are the same: nobody else's work can displace it."""
    shape = job.shape
    wanted: Object = {}
    if shape.cpus is not None:
        wanted["cpu"] = str(shape.cpus)
    if shape.memory is not None:
        wanted["memory"] = quantity(shape.memory)
    if shape.gpus:
        wanted[_GPU] = str(shape.gpus)
    return {"requests": wanted, "limits": dict(wanted)} if wanted else {}


def volumes(job: Job, name: str, settings: Settings) -> tuple[list[Object], list[Object]]:
    """Return the pod's volumes and where its container has them.

    Without a volume of its own /dev/shm has 64 MiB, which workers of a DataLoader and NCCL
    exceed at once. What is in it counts as the container's memory.
    """
    memory: Object = {"medium": "Memory"}
    if job.shape.shared_memory is not None:
        memory["sizeLimit"] = quantity(job.shape.shared_memory)
    made: list[Object] = [{"name": _SHARED, "emptyDir": memory}]
    mounts: list[Object] = [{"name": _SHARED, "mountPath": "/dev/shm"}]  # noqa: S108 (the pod's)
    if job.output is not None and settings.output_claim is None:
        made.append({"name": _OUTPUT, "emptyDir": {}})
        mounts.append({"name": _OUTPUT, "mountPath": job.output})
    elif job.output is not None:
        claim = {"claimName": settings.output_claim}
        made.append({"name": _OUTPUT, "persistentVolumeClaim": claim})
        # A folder of the run's own: the claim outlives it
        mounts.append({"name": _OUTPUT, "mountPath": job.output, "subPath": name})
    return made, mounts


def pod_security(job: Job) -> Object:
    """Return whom the pod runs as: an ordinary user, also where the image says root."""
    uid, gid = _user(job.image.user)
    return {
        "runAsNonRoot": True,
        "runAsUser": uid,
        "runAsGroup": gid,
        "fsGroup": gid,
        "fsGroupChangePolicy": "OnRootMismatch",  # a large claim is not walked through each time
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Object:
    """Return what the container may not do: have capabilities, or gain rights."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def node_selector(job: Job) -> Object:
    """Return the nodes that the image's platform runs on."""
    platform = job.image.platform
    return {"kubernetes.io/os": platform.os, "kubernetes.io/arch": platform.architecture}


def quantity(amount: int) -> str:
    """Write bytes as Kubernetes does, in the largest unit that is exact."""
    for unit, size in _UNITS:
        if amount % size == 0:
            return f"{amount // size}{unit}"
    return str(amount)


def literal(text: str) -> str:
    """Keep Kubernetes from expanding ``$(NAME)``: "double $$ are reduced to a single $"."""
    return text.replace("$", "$$")


def _user(text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    number = int(uid) if uid.isdecimal() and int(uid) else _USER
    return number, int(gid) if gid.isdecimal() and int(gid) else number
