"""What is said before a reproduction runs."""

from dataclasses import replace

import pytest
from tests.runs.records import whole

from torchship.runs.expectation import expectation
from torchship.runs.inside import Facts
from torchship.runs.record import Gpu, Repeat

SAME = replace(whole(), determinism=replace(whole().determinism, repeat=None))
CPU = replace(SAME, hardware=replace(SAME.hardware, gpus=()))


def said(author, threads=2, **changes) -> str:
    """Return what is said on a machine that differs from the author's in this."""
    here = Facts(hardware=replace(author.hardware, **changes), threads=threads)
    return "\n".join(expectation(author, here))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "the same model of processor (AMD EPYC): the same bits are likely"),
        ({"cpu": "AMD Ryzen"}, "another processor of the same vendor (AMD Ryzen)"),
        ({"vendor": "GenuineIntel"}, "another vendor (GenuineIntel, not AuthenticAMD)"),
        ({"instruction_set": "AVX512"}, "torch uses AVX512 here, and used AVX2 there"),
        ({"machine": "aarch64"}, "aarch64 here, and x86_64 there: expect other bits"),
        ({"gpus": (Gpu(name="A100"),)}, "the CPU there and a GPU here"),
    ],
)
def test_machines_are_compared(changes, words):
    """From the same model to another kind of machine."""
    assert words in said(CPU, **changes)


def test_gpus_are_compared():
    """By their model."""
    assert "the same model of GPU (H200)" in said(SAME)
    assert "a A100 here, and a H200 there" in said(SAME, gpus=(Gpu(name="A100"),))
    assert "a GPU there and on the CPU here" in said(SAME, gpus=())


def test_threads_are_compared():
    """Sums are split by them."""
    assert "torch takes 8 threads here, and took 2 there" in said(CPU, threads=8)


def test_a_program_that_is_not_deterministic_promises_nothing():
    """The author saw it differ on one machine."""
    repeat = Repeat(seed=1, identical=False, differs=("x",))
    author = replace(CPU, determinism=replace(CPU.determinism, repeat=repeat))
    assert "do not expect the same bits" in said(author)


def test_nothing_is_said_of_a_machine_that_nobody_looked_at():
    """A record of one `torchship run`."""
    author = replace(CPU, hardware=None)
    assert "not known" in "\n".join(expectation(author, Facts()))
