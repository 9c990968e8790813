"""What `record` says of an image that was built before."""

from __future__ import annotations

import pytest

from torchship.cli.record import _of_this_build
from torchship.errors import MetricsError

OLDER = "build again if pyproject.toml changed"


@pytest.mark.parametrize("hint", [None, "declare one"])
def test_an_image_may_be_older_than_its_settings(hint):
    """A metric that was added to pyproject.toml since is not known to it."""
    with pytest.raises(MetricsError, match="no metrics") as caught, _of_this_build("regression"):
        raise MetricsError("no metrics", hint=hint)
    assert OLDER in caught.value.hint
    assert (hint or "") in caught.value.hint


def test_a_directory_was_built_a_moment_ago(tmp_path):
    """Its settings are those of the image."""
    with pytest.raises(MetricsError) as caught, _of_this_build(str(tmp_path)):
        raise MetricsError("no metrics", hint="declare one")
    assert caught.value.hint == "declare one"
