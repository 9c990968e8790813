"""A job as Kubernetes itself has it: an Indexed Job, and a headless Service for its names.

Source: Kubernetes, "Jobs" (completion mode Indexed, pod backoff failure policy), "Job with
Pod-to-Pod Communication", "Automatic Cleanup for Finished Jobs"; API reference, "Job v1 batch".
"""

from __future__ import annotations

from torchship.launch import torchrun
from torchship.launch.job import Job
from torchship.launch.kubernetes import pod
from torchship.launch.kubernetes.pod import Object
from torchship.launch.kubernetes.settings import Settings

CONTAINER = "main"

KINDS = "jobs,pods"
"""What a job consists of, as ``kubectl get`` takes it."""

_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
_KEPT = 3600  # seconds; should nobody be there any more to delete it


def objects(job: Job, name: str, settings: Settings) -> tuple[Object, ...]:
    """Return the objects that are a job: a Job, and a Service where it has several nodes."""
    if job.shape.nodes == 1:
        return (_job(job, name, settings),)
    return (_service(job, name), _job(job, name, settings))


def deletable(job: Job) -> str:
    """Return what of a job is ours to delete: a Service only where it has one.

    Who runs jobs of one node alone may lack the right to delete Services.
    """
    return "jobs" if job.shape.nodes == 1 else "jobs,services"


def _job(job: Job, name: str, settings: Settings) -> Object:
    spec: Object = {
        "completionMode": "Indexed",
        "completions": job.shape.nodes,
        "parallelism": job.shape.nodes,
        # torchrun restarts processes. A pod that is lost ends the job, and the others with it
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": _KEPT,
    }
    if job.shape.time_limit is not None:
        spec["activeDeadlineSeconds"] = job.shape.time_limit
    spec["template"] = {
        "metadata": {"labels": pod.labels(name)},
        "spec": _pod(job, name, settings),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": pod.labels(name)},
        "spec": spec,
    }


def _pod(job: Job, name: str, settings: Settings) -> Object:
    volumes, mounts = pod.volumes(job, name, settings)
    container: Object = {
        "name": CONTAINER,
        "image": str(job.reference),
        "command": pod.command(job, name),
        "workingDir": job.image.workdir,
        "env": [*_ranks(job, name), *pod.environment(job)],
        "volumeMounts": mounts,
        "securityContext": pod.container_security(),
    }
    if wanted := pod.resources(job):
        container["resources"] = wanted
    if job.shape.nodes > 1:
        container["ports"] = [{"name": "torchrun", "containerPort": job.shape.port}]
    spec: Object = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": pod.GRACE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # no variable for each service of the namespace
        "nodeSelector": pod.node_selector(job),
        "securityContext": pod.pod_security(job),
        "containers": [container],
        "volumes": volumes,
    }
    if job.shape.nodes > 1:
        # With the Service of this name, pod I is NAME-I.NAME
        spec["subdomain"] = name
    if settings.pull_secret is not None:
        spec["imagePullSecrets"] = [{"name": settings.pull_secret}]
    return spec


def _ranks(job: Job, name: str) -> list[Object]:
    if not job.shape.started_by_torchrun:
        return []
    head = f"{name}-0.{name}" if job.shape.nodes > 1 else "127.0.0.1"
    return [
        {"name": torchrun.HEAD, "value": head},
        {"name": torchrun.NODE_RANK, "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}},
    ]


def _service(job: Job, name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": pod.labels(name)},
        "spec": {
            "clusterIP": "None",
            # Names are needed before the pods are ready
            "publishNotReadyAddresses": True,
            "selector": {pod.LABEL: name},
            "ports": [{"name": "torchrun", "port": job.shape.port}],
        },
    }
