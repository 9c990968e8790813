"""Names that were most likely meant."""

import pytest

from torchship.oci.nearest import nearest
from torchship.oci.reference import Reference

THERE = ("time-sequence-prediction", "mnist", "registry.example/me/mnist:v0.1")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("time_sequence_prediction", "time-sequence-prediction"),
        ("Time Sequence Prediction", "time-sequence-prediction"),
        ("mnits", "mnist"),
        ("registry.example/me/mnist:v0.2", "registry.example/me/mnist:v0.1"),
        ("data", ""),
        ("", ""),
    ],
)
def test_the_name_that_is_most_like_it_is_found(text, found):
    """As people write it; nothing where no name is like it."""
    assert nearest(text, [Reference.parse(name) for name in THERE]) == found
