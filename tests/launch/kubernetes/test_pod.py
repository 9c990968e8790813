"""What goes into a pod, as Kubernetes reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.kubelet import expand
from tests.launch.kubernetes.jobs import run

from torchship.launch.job import Shape
from torchship.launch.kubernetes.pod import command, environment, literal, quantity


@given(st.text(alphabet="$()AB x", max_size=12))
def test_nothing_is_expanded(text):
    """Whatever stands in a command or a variable, the program gets it as it was written."""
    assert expand(literal(text), {"A": "one", "B": "two"}) == text


def test_the_expansion_is_that_of_kubernetes():
    """The examples of its documentation: a reference, an escaped one, an unknown one."""
    assert expand("$(A) $$(A) $(UNKNOWN) $A", {"A": "one"}) == "one $(A) $(UNKNOWN) $A"


def test_commands_and_variables_are_literal():
    """A dollar of the user's reaches the program."""
    job = run(Shape(), command=("sh", "-c", "echo $(date)"), PRICE="$5")
    assert command(job, "name")[-1] == "echo $$(date)"
    assert environment(job)[0] == {"name": "PRICE", "value": "$$5"}


@pytest.mark.parametrize(
    ("amount", "text"),
    [(64 << 30, "64Gi"), (1536 << 20, "1536Mi"), (1000, "1000"), (3 << 10, "3Ki")],
)
def test_quantities_are_exact(amount, text):
    """Memory is written in the largest unit that loses nothing."""
    assert quantity(amount) == text
