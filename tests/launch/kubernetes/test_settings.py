"""Names that a user gives for objects of a cluster."""

import pytest

from torchship.errors import UsageError
from torchship.launch.kubernetes.settings import Settings


@pytest.mark.parametrize(
    "settings",
    [
        Settings(namespace="Team A"),
        Settings(namespace="a.b"),
        Settings(namespace="-n"),
        Settings(pull_secret="a/b"),
        Settings(output_claim="x" * 300),
        Settings(context=""),
        Settings(context="--kubeconfig=/etc/shadow"),
    ],
    ids=lambda settings: repr(settings)[:60],
)
def test_what_can_be_no_name_is_refused(settings):
    """It is told here, not by the cluster after a minute; and no name becomes an option."""
    with pytest.raises(UsageError, match="--"):
        settings.check()


def test_names_as_clusters_have_them():
    """Contexts of clouds have slashes and colons; secrets may have dots."""
    Settings(
        namespace="team-a",
        pull_secret="registry.example",
        context="arn:aws:eks:eu-west-1:1234:cluster/research",
    ).check()
