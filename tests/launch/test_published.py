"""The image of a job, as its registry has it."""

import pytest

from torchship.launch.published import for_nodes


@pytest.mark.parametrize(
    ("names", "gpus", "taken"),
    [
        (("cpu", "cu126", "cu130"), 1, "cu130"),
        (("cpu", "cu126", "cu130"), 0, "cpu"),
        (("cu130", "cu126"), 0, "cu130"),
        (("cpu",), 8, "cpu"),
    ],
)
def test_a_variant_is_chosen_by_what_is_asked_for(names, gpus, taken):
    """Nobody here can look at the nodes: GPUs mean the newest CUDA, none the CPU's build."""
    assert for_nodes(gpus)(names) == taken
