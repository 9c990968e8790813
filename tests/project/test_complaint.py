"""What uv tells, by its text; tests/project/test_wheels.py has the real uv tell it."""

from __future__ import annotations

import pytest

from torchship.platform import Platform
from torchship.project.complaint import explain, wanted
from torchship.project.target import Target


@pytest.mark.parametrize(
    ("proof", "said"),
    [
        ("Because you require torch<2.6 and torch==3+cpu, we", "wants torch<2.6"),
        (
            "Because a==1 depends on torch==2 and own depends on torch==3+cpu, we",
            "brings a==1, which",
        ),
        (
            "Because own depends on torch==3+cpu and all of a>=1,<2 depend on torch<3, we",
            "which needs",
        ),
        ("Because you require torch==3+cpu and torchvision<2, we", ""),
    ],
)
def test_who_wants_another_version_is_taken_from_the_proof(proof, said):
    """The limit that was added to the question is nobody's wish."""
    found = wanted("torch", proof, by="own", but="torch==3+cpu")
    assert said in found
    assert bool(found) is bool(said)


def test_the_wheel_to_build_is_of_the_version_that_is_wanted():
    """The newest would not fit; the command can be copied into a shell as it is."""
    proof = (
        "  cause: Because antlr4>=4.9,<=4.9.3 has no usable wheels and only the following versions "
        "of antlr4 are available:\n    antlr4>=4.9,<=4.9.3\n    antlr4>4.10.dev0\n"
        "  And because conf==2.3.0 depends on antlr4==4.9.*, we can conclude\n"
    )
    error = explain(proof, Target.of(Platform("linux", "amd64"), "3.11.2"))
    assert error.message.startswith("antlr4==4.9.* has no wheel for linux/amd64")
    assert error.message.endswith("; conf==2.3.0 needs it")
    assert "-w wheels 'antlr4==4.9.*'`" in error.hint
