"""Images that nodes cannot pull."""

import pytest
from tests.launch.kubernetes.jobs import EVERY, REFERENCE

from torchship.launch.kubernetes.pulls import Pulls
from torchship.launch.kubernetes.state import Look, Pod, Reason

BUSY = f'Back-off pulling image "{REFERENCE}": 429 Too Many Requests: denied'


def look(reason, message="", index=1):
    """Return a job with one node that waits."""
    waiting = Reason(reason=reason, message=message)
    return Look(present=True, pods=(Pod(name="p", index=index, waiting=waiting),))


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff"])
@pytest.mark.parametrize(
    "said",
    [
        f'failed to resolve "{REFERENCE}": {REFERENCE}: not found',
        "unexpected status: 401 Unauthorized",
        "pull access denied, repository does not exist or may require authorization",
        "no match for platform in manifest",
    ],
)
def test_what_stays_is_told_at_once(reason, said):
    """The image, the cluster's words, and what to do."""
    error = Pulls(EVERY["bare"]).failed(look(reason, said), 0)
    assert error.message == f"node 1 cannot pull {REFERENCE}: {reason}: {said}"
    assert "--pull-secret" in error.hint


def test_a_registry_that_falters_is_waited_for():
    """The kubelet tries again, and that is told; minutes later it is an error."""
    pulls = Pulls(EVERY["bare"])
    assert pulls.failed(look("ErrImagePull", "dial tcp: i/o timeout"), 1000) is None
    assert pulls.failed(look("ImagePullBackOff", 'Back-off pulling image "x"'), 1010) is None
    assert pulls.faltering.startswith(f"node 1 cannot pull {REFERENCE} yet")
    assert pulls.failed(look("ImagePullBackOff", BUSY), 1290) is None
    error = pulls.failed(look("ImagePullBackOff"), 1301)
    assert error.message.endswith("ErrImagePull: dial tcp: i/o timeout")


def test_a_pull_that_succeeds_after_all():
    """What was told of it is told no more."""
    pulls = Pulls(EVERY["bare"])
    assert pulls.failed(look("ImagePullBackOff", BUSY), 0) is None
    assert pulls.failed(look("ContainerCreating"), 900) is None
    assert pulls.faltering is None


@pytest.mark.parametrize("reason", ["ErrImageNeverPull", "InvalidImageName"])
def test_what_is_never_tried_again(reason):
    """A node that does not even try is an error, whatever it says."""
    assert Pulls(EVERY["bare"]).failed(look(reason), 0) is not None
