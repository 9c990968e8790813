"""A job as Kubeflow Trainer has it: a TrainJob of the runtime ``torch-distributed``.

The runtime gives torchrun its ranks and the address of the first node, by variables.
Source: Kubeflow Trainer 2.2, API ``trainer.kubeflow.org/v1alpha1``: TrainJob, RuntimePatch;
pkg/runtime/framework/plugins/torch for what the runtime sets.
"""

from __future__ import annotations

from torchship.launch.job import Job
from torchship.launch.kubernetes import pod
from torchship.launch.kubernetes.pod import Object
from torchship.launch.kubernetes.settings import Settings

CONTAINER = "node"
"""The container of the runtime that the program replaces; its job has the same name."""

KINDS = "trainjobs.trainer.kubeflow.org,pods"
"""What a job consists of, as ``kubectl get`` takes it."""

_RUNTIME = "torch-distributed"
_MANAGER = "dev.torchship/launch"


def objects(job: Job, name: str, settings: Settings) -> tuple[Object, ...]:
    """Return the one object that is a job."""
    trainer: Object = {
        "image": str(job.reference),
        "command": pod.command(job, name),
        "numNodes": job.shape.nodes,
        "numProcPerNode": job.shape.processes,
    }
    if variables := pod.environment(job):
        trainer["env"] = variables
    if wanted := pod.resources(job):
        trainer["resourcesPerNode"] = wanted
    spec: Object = {
        "runtimeRef": {
            "apiGroup": "trainer.kubeflow.org",
            "kind": "ClusterTrainingRuntime",
            "name": _RUNTIME,
        },
        "trainer": trainer,
        "runtimePatches": [
            {
                "manager": _MANAGER,
                "trainingRuntimeSpec": {
                    "template": {"spec": {"replicatedJobs": [_patch(job, name, settings)]}}
                },
            }
        ],
    }
    if job.shape.time_limit is not None:
        spec["activeDeadlineSeconds"] = job.shape.time_limit
    return (
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {"name": name, "labels": pod.labels(name)},
            "spec": spec,
        },
    )


def deletable(_: Job) -> str:
    """Return what of a job is ours to delete."""
    return "trainjobs.trainer.kubeflow.org"


def _patch(job: Job, name: str, settings: Settings) -> Object:
    volumes, mounts = pod.volumes(job, name, settings)
    spec: Object = {
        "nodeSelector": pod.node_selector(job),
        "securityContext": pod.pod_security(job),
        "volumes": volumes,
        "containers": [
            {
                "name": CONTAINER,
                "volumeMounts": mounts,
                "securityContext": pod.container_security(),
            }
        ],
    }
    if settings.pull_secret is not None:
        spec["imagePullSecrets"] = [{"name": settings.pull_secret}]
    template = {"metadata": {"labels": pod.labels(name)}, "spec": spec}
    return {"name": CONTAINER, "template": {"spec": {"template": template}}}
