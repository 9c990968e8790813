"""What is left out of wheels."""

import pytest

from torchship.errors import UsageError
from torchship.layers.prune import matcher
from torchship.project.project import PRUNE


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("torch/test/cpp/a.so", True),
        ("torch/bin/test_api", True),
        ("torch/bin/torch_shm_manager", False),
        ("torch/testing/__init__.py", False),
        ("other/torch/test/a", False),
    ],
)
def test_the_default_leaves_out_torchs_own_tests_alone(path, left_out):
    """The default patterns name C++ tests and nothing that a program needs."""
    assert matcher(PRUNE)(path) is left_out


def test_no_patterns_leave_out_nothing():
    """`prune = []` turns pruning off."""
    assert not matcher(())("torch/test/a")


def test_a_later_exception_takes_back():
    """The last pattern that matches decides."""
    left_out = matcher(("**/tests/", "!pkg/tests/data.json", "*.h"))
    assert left_out("pkg/tests/a.py")
    assert left_out("pkg/include/a.h")
    assert not left_out("pkg/tests/data.json")


def test_what_is_no_pattern_is_a_usage_error():
    """A pattern that can never be one is named."""
    with pytest.raises(UsageError, match="'!'"):
        matcher(("!",))
