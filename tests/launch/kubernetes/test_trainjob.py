"""A TrainJob, as Kubeflow Trainer takes it."""

import pytest
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
from tests.launch.kubernetes.jobs import EVERY, REFERENCE

from torchship.launch.kubernetes import trainjob
from torchship.launch.kubernetes.settings import Settings

NAME = "mnist-fast-0a1b2c"
ALL = Settings(kind="trainjob", pull_secret="password", output_claim="results")


@pytest.mark.parametrize("settings", [Settings(kind="trainjob"), ALL], ids=["plain", "all"])
@pytest.mark.parametrize("job", EVERY.values(), ids=EVERY)
def test_every_field_is_one_of_the_published_model(job, settings):
    """What is written, read by Kubeflow's own model, loses nothing: it knows every field."""
    (made,) = trainjob.objects(job, NAME, settings)
    assert TrainerV1alpha1TrainJob.from_dict(made).to_dict() == made


def test_the_model_would_tell():
    """A field that is not in the model is lost on the way: the test above can fail."""
    (made,) = trainjob.objects(EVERY["bare"], NAME, ALL)
    made["spec"]["trainer"]["nodes"] = 1
    assert TrainerV1alpha1TrainJob.from_dict(made).to_dict() != made


def test_the_runtime_gives_the_ranks():
    """The trainer says how many; torchrun's own variables are the runtime's, and not set."""
    (made,) = trainjob.objects(EVERY["full"], NAME, ALL)
    trainer = made["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 4)
    assert trainer["image"] == str(REFERENCE)
    assert not any(one["name"].startswith("PET_") for one in trainer["env"])
    assert made["spec"]["runtimeRef"]["name"] == "torch-distributed"
    assert made["spec"]["activeDeadlineSeconds"] == 7200


def test_pods_are_patched():
    """What a trainer has no field for is a patch of the runtime's one job and container."""
    (made,) = trainjob.objects(EVERY["full"], NAME, ALL)
    (patch,) = made["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]
    assert job["name"] == pod["spec"]["containers"][0]["name"] == "node"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "password"}]
    assert pod["spec"]["securityContext"]["runAsUser"] == 1000
    assert pod["metadata"]["labels"]["dev.torchship.job"] == NAME
