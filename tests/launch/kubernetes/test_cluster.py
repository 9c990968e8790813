"""A job's objects in the cluster: what is made is deleted again."""

import os

import pytest
from tests.launch.kubernetes.jobs import IMAGE, REFERENCE

from torchship.engines.request import Request
from torchship.errors import EngineError
from torchship.launch.job import Shape
from torchship.launch.kubernetes.cluster import Kubernetes


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Return what launches by a kubectl that cannot create, and which deletions followed."""

    def launched(complaint: str) -> list[str]:
        program = tmp_path / "kubectl"
        program.write_text(
            f"#!/bin/sh\necho $* >> {tmp_path}/calls\n[ $1 = delete ] && exit\n"
            f"cat > {tmp_path}/made\necho '{complaint}' >&2; exit 1\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(EngineError):
            Kubernetes(REFERENCE, Shape()).run(Request(image=IMAGE, command=("true",)))
        calls = (tmp_path / "calls").read_text().splitlines()
        return [call for call in calls if call.startswith("delete")]

    return launched


@pytest.mark.parametrize(
    "complaint",
    [
        "error: unexpected EOF",
        'Error from server (Timeout): error when creating "STDIN": the server was unable to '
        "return a response in the time allotted, but may still be processing the request",
    ],
)
def test_a_job_whose_creation_was_not_answered_is_deleted(refused, complaint):
    """The cluster may have it all the same."""
    (call,) = refused(complaint)
    assert call.startswith("delete jobs --selector=dev.torchship.job=")


@pytest.mark.parametrize(
    "complaint",
    [
        'Error from server (Forbidden): error when creating "STDIN": jobs.batch is forbidden',
        "The connection to the server 127.0.0.1:1 was refused - did you specify the right host?",
    ],
)
def test_a_job_that_was_never_there_is_not_deleted(refused, complaint):
    """What was refused, or could not be asked for, leaves nothing."""
    assert refused(complaint) == []
