"""What kubectl complains of, told in one sentence."""

import pytest

from torchship.errors import EngineError
from torchship.launch.kubernetes.kubectl import Kubectl, last_words, refusal
from torchship.launch.kubernetes.settings import Settings

# As printed by kubectl 1.20 and 1.32, and for errors of a server by Kubernetes 1.20 to 1.32
REFUSED = (
    'E1123 05:50:41.786111   25877 memcache.go:265] "Unhandled Error" err="couldn\'t get current '
    'server API group list: Get \\"http://127.0.0.1:1/api?timeout=32s\\": dial tcp 127.0.0.1:1: '
    'connect: connection refused"\n'
    "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or "
    "port?\n"
)
FORBIDDEN = (
    'Error from server (Forbidden): error when creating "STDIN": jobs.batch is forbidden: User '
    '"ada" cannot create resource "jobs" in API group "batch" in the namespace "research"\n'
)
QUOTA = (
    'Error from server (Forbidden): error when creating "STDIN": jobs.batch "m" is forbidden: '
    "exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=1, limited: 1\n"
)
NO_TRAINER = (
    'error: resource mapping not found for name: "m" namespace: "" from "STDIN": no matches for '
    'kind "TrainJob" in version "trainer.kubeflow.org/v1alpha1"\nensure CRDs are installed first\n'
)
OLD_NO_TRAINER = (
    'error: unable to recognize "STDIN": no matches for kind "TrainJob" in version '
    '"trainer.kubeflow.org/v1alpha1"\n'
)
OLD_TRAINER = (
    'Error from server (BadRequest): error when creating "STDIN": TrainJob in version "v1alpha1" '
    'cannot be handled as a TrainJob: strict decoding error: unknown field "spec.runtimePatches"\n'
)
UNKNOWN = "Warning: old\nError from server (InternalError): etcdserver: request timed out\n"


NO_SCHEMAS = (
    'error: error validating "STDIN": error validating data: failed to download openapi: Get '
    '"https://10.0.0.1:6443/openapi/v2?timeout=32s": dial tcp 10.0.0.1:6443: i/o timeout; if you '
    "choose to ignore these errors, turn validation off with --validate=false\n"
)
SLOW = (
    'Unable to connect to the server: Get "https://10.0.0.1:6443/api": net/http: TLS handshake '
    "timeout\n"
)


@pytest.mark.parametrize(
    ("errors", "message", "hint"),
    [
        (REFUSED, "no Kubernetes cluster answers at 127.0.0.1:1", "--context"),
        (
            FORBIDDEN,
            "the cluster does not allow ada to create jobs in the namespace research",
            "rights",
        ),
        (QUOTA, "the namespace's quota does not allow the job: jobs.batch", "ask for less"),
        (NO_TRAINER, "Kubeflow Trainer is not installed in this cluster", "--kind trainjob"),
        (OLD_NO_TRAINER, "Kubeflow Trainer is not installed in this cluster", "--kind trainjob"),
        (OLD_TRAINER, "the cluster's Kubeflow Trainer is too old", "2.2"),
        (
            'Error from server (NotFound): error when creating "STDIN": namespaces "nope" not '
            "found\n",
            "there is no namespace nope in the cluster",
            "--namespace",
        ),
        (
            "Error in configuration: context was not found for specified context: zz\n",
            "context was not found for specified context: zz",
            "get-contexts",
        ),
        ('error: context "zz" does not exist\n', 'context "zz" does not exist', "get-contexts"),
        (
            "error: You must be logged in to the server (Unauthorized)\n",
            "the cluster does not know who you are",
            "sign in",
        ),
        (
            "Unable to connect to the server: dial tcp: lookup cluster.example on 127.0.0.1:53: no "
            "such host\n",
            "no Kubernetes cluster answers at cluster.example",
            "--context",
        ),
    ],
)
def test_what_can_be_told_is_told(errors, message, hint):
    """Each common refusal is one sentence, without kubectl's log, and says what to do next."""
    told = refusal(errors, ("create",))
    assert told.message.startswith(message)
    assert "\n" not in told.message
    assert hint in told.hint


def test_what_may_pass_is_told_from_what_stays():
    """A cluster that is out of reach may come back; one that forbids has answered."""
    assert [refusal(each, ("get",)).final for each in (REFUSED, UNKNOWN, "")] == [False] * 3
    final = (FORBIDDEN, QUOTA, NO_TRAINER, OLD_TRAINER)
    assert all(refusal(each, ("get",)).final for each in final)


def test_what_is_unknown_is_passed_on():
    """Nobody's explanation is better than the server's own words."""
    assert refusal(UNKNOWN, ("get",)).message == "kubectl get: etcdserver: request timed out"
    assert refusal("", ("get",)).message == "kubectl get: it did not say why"
    assert last_words(REFUSED).startswith("The connection to the server 127.0.0.1:1 was refused")


def test_without_kubectl(tmp_path, monkeypatch):
    """A machine without kubectl is told what is missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    kubectl = Kubectl(Settings())
    assert not kubectl.installed
    with pytest.raises(EngineError, match="kubectl is not installed"):
        kubectl.tell("get", "pods")
    with pytest.raises(EngineError, match="kubectl is not installed"):
        kubectl.start("logs", "x")


def test_without_a_configuration(tmp_path, monkeypatch):
    """What kubectl falls back to, a server on this machine, is no cluster of the user's."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    said = REFUSED.replace("127.0.0.1:1", "localhost:8080")
    assert refusal(said, ("get",)).message == "kubectl knows no cluster"


def test_where_the_cluster_is(tmp_path):
    """Context and namespace stand before the request, and not in what follows ``--``."""
    kubectl = Kubectl(Settings(context="c", namespace="n"))
    assert kubectl.command("exec", "p", "--", "sh") == (
        *("kubectl", "--context=c", "--namespace=n"),
        *("exec", "p", "--", "sh"),
    )
