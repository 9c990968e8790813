"""An Indexed Job, as Kubernetes takes it."""

import kubernetes_validate
import pytest
from msgspec.structs import replace
from tests.launch.kubernetes.jobs import EVERY, FULL, IMAGE, REFERENCE, run

from torchship.launch.job import Shape
from torchship.launch.kubernetes import indexed
from torchship.launch.kubernetes.settings import Settings

NAME = "mnist-fast-0a1b2c"
SETTINGS = {
    "plain": Settings(),
    "all": Settings(pull_secret="password", output_claim="results", namespace="research"),
}
VERSIONS = ("1.26", "1.37")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("job", EVERY.values(), ids=EVERY)
def test_every_object_fits_the_published_schema(job, settings, version):
    """Old and new Kubernetes take each form of a job, and know all of its fields."""
    for made in indexed.objects(job, NAME, settings):
        assert kubernetes_validate.validate(made, version, strict=True) == version


def test_the_schema_would_tell():
    """A field that Kubernetes does not know is no valid job: the test above can fail."""
    (made,) = indexed.objects(EVERY["bare"], NAME, Settings())
    made["spec"]["completionmode"] = "Indexed"
    with pytest.raises(kubernetes_validate.ValidationError, match="completionmode"):
        kubernetes_validate.validate(made, "1.37", strict=True)


def spec(job, settings=SETTINGS["plain"]):
    """Return the pod's specification, and its container."""
    pod = indexed.objects(job, NAME, settings)[-1]["spec"]["template"]["spec"]
    return pod, pod["containers"][0]


def test_nodes_find_each_other_by_name():
    """The first pod's name is that of the Service's name space, and selects by the same label."""
    service, job = indexed.objects(EVERY["full"], NAME, Settings())
    pod, container = spec(EVERY["full"])
    variables = {one["name"]: one for one in container["env"]}
    assert service["metadata"]["name"] == pod["subdomain"] == NAME
    assert variables["PET_MASTER_ADDR"]["value"] == f"{NAME}-0.{NAME}"
    assert "completion-index" in variables["PET_NODE_RANK"]["valueFrom"]["fieldRef"]["fieldPath"]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"][0]["port"] == FULL.port


def test_one_node_needs_no_service():
    """A job of one node is one object, and its processes meet on loopback."""
    objects = indexed.objects(EVERY["one node of several processes"], NAME, Settings())
    assert [each["kind"] for each in objects] == ["Job"]
    _, container = spec(EVERY["one node of several processes"])
    assert {"name": "PET_MASTER_ADDR", "value": "127.0.0.1"} in container["env"]


def test_what_is_asked_for_is_requested_and_the_limit():
    """A node's resources are its own: requests and limits are the same, and GPUs among them."""
    _, container = spec(EVERY["full"])
    wanted = {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "4"}
    assert container["resources"] == {"requests": wanted, "limits": wanted}
    pod, _ = spec(EVERY["full"])
    assert pod["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert "resources" not in spec(EVERY["bare"])[1]


def test_a_pod_that_fails_ends_the_job():
    """No pod is replaced, the deadline is the time limit, and nothing stays for long."""
    made = indexed.objects(EVERY["full"], NAME, Settings())[-1]["spec"]
    assert (made["backoffLimit"], made["activeDeadlineSeconds"]) == (0, 7200)
    assert made["template"]["spec"]["restartPolicy"] == "Never"
    assert made["ttlSecondsAfterFinished"] > 0
    assert "--max-restarts=2" in spec(EVERY["full"])[1]["command"]


@pytest.mark.parametrize(
    ("user", "numbers"),
    [
        ("1000:1000", (1000, 1000)),
        ("1234", (1234, 1234)),
        ("root", (1000, 1000)),
        ("0", (1000,) * 2),
    ],
)
def test_pods_run_as_an_ordinary_user(user, numbers):
    """The image's user is taken where it is ordinary; root is nobody's."""
    job = replace(run(Shape()), image=replace(IMAGE, user=user))
    pod, container = spec(job)
    security = pod["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == numbers
    assert security["runAsNonRoot"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["automountServiceAccountToken"] is False


def test_a_secret_and_a_claim():
    """The registry's password is the Secret's; outputs go to a folder of the claim."""
    pod, container = spec(EVERY["full"], SETTINGS["all"])
    assert pod["imagePullSecrets"] == [{"name": "password"}]
    assert pod["volumes"][1]["persistentVolumeClaim"] == {"claimName": "results"}
    assert container["volumeMounts"][1]["subPath"] == NAME
    assert container["image"] == str(REFERENCE)


def test_a_question_keeps_no_pod():
    """A question has no output directory, and its pod ends at once."""
    _, container = spec(EVERY["question"])
    assert container["command"][3:6] == [NAME, "0", "drop"]
    assert [each["mountPath"] for each in container["volumeMounts"]] == ["/dev/shm"]


@pytest.mark.parametrize("job", EVERY.values(), ids=EVERY)
def test_what_is_made_is_what_is_deleted(job):
    """Rights on services are needed only where a job has one."""
    kinds = {f"{each['kind'].lower()}s" for each in indexed.objects(job, NAME, Settings())}
    assert set(indexed.deletable(job).split(",")) == kinds
