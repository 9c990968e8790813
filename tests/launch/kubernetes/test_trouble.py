"""What a cluster says of a job that does not go well, told in one sentence."""

import pytest
from tests.launch.kubernetes.jobs import EVERY

from torchship.errors import EngineError, RunError
from torchship.launch.kubernetes import state, trouble

NAME = "m-1"
JOB = EVERY["full"]


def pod(index=0, *, state=None, **status):
    """Return a pod as ``kubectl get`` prints it."""
    container = {"name": "main", "state": state or {}}
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"{NAME}-{index}-abcde",
            "labels": {"dev.torchship.job": NAME},
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        },
        "status": {"containerStatuses": [container], **status},
    }


def look(*pods, failed=None, complete=False):
    """Return a job as it is read."""
    conditions = []
    if failed:
        conditions.append({"type": "Failed", "status": "True", "reason": failed, "message": "m"})
    if complete:
        conditions.append({"type": "Complete", "status": "True"})
    conditions.append({"type": "Suspended", "status": "False"})
    job = {
        "kind": "Job",
        "metadata": {"name": NAME, "labels": {"dev.torchship.job": NAME}},
        "status": {"conditions": conditions, "active": 1},
    }
    return state.read({"items": [job, *pods]}, NAME, "main")


def waits(reason, message=""):
    """Return the state of a container that does not begin."""
    return {"waiting": {"reason": reason, "message": message}}


def ended(code, reason="Error", at="2026-01-01T00:00:00Z", message=""):
    """Return the state of a container that has ended."""
    how = {"exitCode": code, "reason": reason, "finishedAt": at, "message": message}
    return {"terminated": how}


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing", "ErrImagePull"])
def test_what_may_pass_is_waited_for(reason):
    """A pod that is being made, or whose pull failed once, is no error."""
    assert trouble.waiting(look(pod(state=waits(reason)))) is None


def test_a_container_that_cannot_start():
    """A missing Secret, or an image without Python, is told."""
    error = trouble.waiting(look(pod(state=waits("CreateContainerConfigError", "no secret"))))
    assert "cannot start the container: CreateContainerConfigError: no secret" in error.message
    error = trouble.waiting(look(pod(state=ended(128, "StartError", message="exec: python3"))))
    assert isinstance(error, trouble.NotBegun)


def test_no_room_is_told_and_waited_for():
    """Machines may come: it is a line, and no error, until the time limit."""
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }
    waiting = look(pod(conditions=[condition]))
    assert "3 Insufficient nvidia.com/gpu" in trouble.unscheduled(waiting)
    assert trouble.waiting(waiting) is None
    assert trouble.unscheduled(look(pod())) is None
    over = look(pod(conditions=[condition]), failed="DeadlineExceeded")
    assert (
        "did not begin within its time limit of 7200 s: the"
        in trouble.failure(over, JOB, began=False).message
    )


def test_out_of_memory():
    """The kernel's end of a node is told, with what the node had."""
    failed = look(pod(), pod(2, state=ended(137, "OOMKilled")), failed="BackoffLimitExceeded")
    error = trouble.failure(failed, JOB, began=True)
    assert isinstance(error, RunError)
    assert error.message == "node 2 was killed: out of memory, it needed more than its 64Gi"
    assert "--memory" in error.hint


def test_the_time_limit():
    """The job's deadline is the user's time limit."""
    error = trouble.failure(look(failed="DeadlineExceeded"), JOB, began=True)
    assert isinstance(error, RunError)
    assert error.message == "the job was ended at its time limit of 7200 s"


def test_a_node_that_is_taken_away():
    """An eviction, for memory or for a drain, is told in the cluster's words."""
    full = pod(1, reason="Evicted", message='Usage of EmptyDir volume "shared-memory" exceeds')
    error = trouble.failure(look(pod(), full, failed="BackoffLimitExceeded"), JOB, began=True)
    assert error.message.startswith("the cluster took node 1 away: Evicted: Usage of EmptyDir")
    drained = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    error = trouble.failure(look(pod(conditions=[drained]), failed="X"), JOB, began=True)
    assert error.message == "the cluster took node 0 away: PreemptionByScheduler"


def test_the_programs_own_failure_is_no_trouble():
    """Its exit status is the answer; of several nodes it is that of the first that failed."""
    failed = look(
        pod(0, state=ended(1, at="2026-01-01T00:00:02Z")),
        pod(1, state=ended(3, at="2026-01-01T00:00:01Z")),
        pod(2, state=ended(0, "Completed", at="2026-01-01T00:00:00Z")),
        failed="BackoffLimitExceeded",
    )
    assert trouble.failure(failed, JOB, began=True) is None
    assert failed.culprit.index == 1
    assert trouble.exit_status(failed.culprit) == 3


def test_other_objects_are_not_looked_at():
    """What a cluster lists beside the job, and fields that nobody knows, change nothing."""
    foreign = pod(state=ended(1))
    foreign["metadata"]["labels"] = {"dev.torchship.job": "another"}
    found = state.read({"items": [foreign], "x": 1}, NAME, "main")
    assert (found.present, found.pods) == (False, ())
    assert look(complete=True).complete


@pytest.mark.parametrize("items", ["x", [1], [{"kind": "Pod"}], [{"metadata": {"name": 3}}]])
def test_an_answer_of_another_form(items):
    """A server that is none of Kubernetes' gives an error, not a traceback."""
    with pytest.raises(EngineError, match="unknown way"):
        state.read({"items": items}, NAME, "main")
