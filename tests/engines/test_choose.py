"""Which engine runs an image."""

import pytest

from torchship.engines.choose import choose
from torchship.errors import UsageError

from .conftest import linux


@linux
@pytest.mark.parametrize("name", ["auto", "native"])
def test_the_native_engine_is_found(store, name):
    """By name, and where nothing else is there."""
    assert choose(name, store).run


def test_an_unknown_engine_is_a_usage_error(store):
    """And the message lists the known ones."""
    with pytest.raises(UsageError) as caught:
        choose("lxc", store)
    assert "native" in caught.value.hint
