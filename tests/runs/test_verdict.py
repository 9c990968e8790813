"""Verdicts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from msgspec import structs
from tests.runs.records import ACCURACY, IMAGE, accuracies, record, run

from torchship.digest import Digest
from torchship.project.project import Metric
from torchship.runs.judgement import Level
from torchship.runs.record import DataUsed
from torchship.runs.verdict import compare
from torchship.runs.wording import told

FIVE = (0.9915, 0.9917, 0.9921, 0.9908, 0.9912)
LOSS = Metric(name="test_loss", better="lower")


def level(author, reproducer) -> Level:
    """Return the level of a verdict, having looked whether it can be told."""
    found = compare(author, reproducer)
    lines = told(found, author, reproducer)
    assert lines[0].startswith(f"{found.wording}: ")
    assert found.exit_code == found.level.exit_code
    return found.level


# -- the five verdicts


def test_the_exit_codes():
    """They are fixed: scripts rely on them."""
    assert {each.value: each.exit_code for each in Level} == {
        "BIT-IDENTICAL": 0,
        "WITHIN TOLERANCE": 0,
        "NOT REPRODUCED": 1,
        "INCONCLUSIVE": 3,
        "COULD NOT RUN": 4,
    }


def test_the_same_bits_of_the_same_seeds():
    """Every metric and every output of each run equals the author's of that seed."""
    author = accuracies(*FIVE)
    assert level(author, accuracies(*FIVE)) is Level.BIT_IDENTICAL
    assert level(author, accuracies(FIVE[0])) is Level.BIT_IDENTICAL
    assert level(author, accuracies(FIVE[3], first=4)) is Level.BIT_IDENTICAL
    assert level(accuracies(0.99), accuracies(0.99)) is Level.BIT_IDENTICAL


def test_the_same_bits_of_another_seed_are_no_repetition():
    """Nor are those of a run whose seed nobody knows."""
    author = accuracies(*FIVE)
    assert level(author, accuracies(FIVE[0], first=9)) is Level.WITHIN_TOLERANCE
    assert level(author, record(run(None, test_accuracy=FIVE[0]))) is Level.WITHIN_TOLERANCE


@pytest.mark.parametrize(
    "other",
    [
        run(1, test_accuracy=math.nextafter(0.9915, 1)),
        run(1, test_accuracy=0.9915, output=b"other"),
        run(1, test_accuracy=0.9915, epochs=1),
        replace(run(1, test_accuracy=0.9915), outputs={}),
    ],
    ids=["last bit of a metric", "output", "one metric more", "output missing"],
)
def test_one_bit_is_enough_to_be_another_run(other):
    """Then the numbers have to be within tolerance."""
    author = accuracies(*FIVE)
    assert level(author, record(other)) is Level.WITHIN_TOLERANCE
    assert compare(author, record(other)).differs


def test_zero_and_minus_zero_are_not_the_same_bits():
    """They are equal, all the same."""
    author = accuracies(0.0, 0.1)
    same = record(run(1, test_accuracy=-0.0, output=b"x"))
    assert "test_accuracy" in compare(author, same).differs


def test_tensors_are_compared_by_content():
    """Two archives of the same tensors are the same output, where both sides looked."""
    inside = {"model.bin": Digest.of(b"tensors")}
    one = replace(run(1, test_accuracy=0.9, output=b"1"), tensors=inside)
    other = replace(run(1, test_accuracy=0.9, output=b"2"), tensors=inside)
    assert level(record(one), record(other)) is Level.BIT_IDENTICAL
    blind = replace(other, tensors={})
    assert level(record(one), record(blind)) is Level.INCONCLUSIVE


def test_within_the_tolerance():
    """A run that the author could have made himself."""
    found = compare(accuracies(*FIVE), accuracies(0.9913, first=9))
    assert found.level is Level.WITHIN_TOLERANCE
    assert found.reasons == ("the one claim holds",)


def test_far_beyond_the_tolerance():
    """A changed learning rate does not pass, nor does a result that is too good."""
    found = compare(accuracies(*FIVE), accuracies(0.95, first=9))
    assert (found.level, found.wording) == (Level.NOT_REPRODUCED, "NOT REPRODUCED")
    better = compare(accuracies(*FIVE), accuracies(0.9999, first=9))
    assert (better.level, better.wording) == (Level.NOT_REPRODUCED, "NOT REPRODUCED (better)")


def test_lower_is_better_for_a_loss():
    """What is better is the author's to say."""
    author = record(*(run(s, test_loss=0.1 + s / 1000) for s in range(5)), metrics=(LOSS,))
    assert (
        compare(author, record(run(9, test_loss=0.01), metrics=(LOSS,))).wording
        == "NOT REPRODUCED (better)"
    )
    assert (
        compare(author, record(run(9, test_loss=0.9), metrics=(LOSS,))).wording == "NOT REPRODUCED"
    )


def test_between_the_two_nothing_is_decided():
    """Neither surely within, nor beyond what chance gives."""
    author = accuracies(*FIVE)
    edge = author.claims[0].mean - author.claims[0].tolerance
    found = compare(author, accuracies(edge + 1e-5, first=9))
    assert found.level is Level.INCONCLUSIVE
    assert "more runs" in found.reasons[0]


def test_a_crash_could_not_run():
    """A program that fails measured nothing, even if another run went well."""
    author = accuracies(*FIVE)
    found = compare(author, record(run(1, status=137)))
    assert found.level is Level.COULD_NOT_RUN
    assert "exit status 137 (seed 1)" in found.reasons[0]
    mixed = record(run(1, test_accuracy=0.99), run(2, status=1))
    assert level(author, mixed) is Level.COULD_NOT_RUN


# -- the published case: a seeded container, 9917 on one machine and 9914 on another


def test_one_run_each_is_never_a_pass():
    """It is inconclusive, consistent if errors are independent, with the numbers."""
    metric = structs.replace(ACCURACY, examples=10_000)
    author, other = accuracies(0.9917, metric=metric), accuracies(0.9914, metric=metric)
    found = compare(author, other)
    assert (found.level, found.exit_code) == (Level.INCONCLUSIVE, 3)
    assert "consistent if errors are independent" in found.reasons[0]
    (judged,) = found.claims
    p = 0.99155
    assert judged.binomial.consistent
    assert judged.binomial.bound == pytest.approx(1.96 * math.sqrt(2 * p * (1 - p) / 10_000))
    text = "\n".join(told(found, author, other))
    for words in (
        "INCONCLUSIVE: test_accuracy: consistent if errors are independent (variance assumed)",
        "0.9917, 1 run",
        "0.9914, 1 run",
        "-0.0003 (worse)",
        "= 0.0025",
        "p = 0.99155 on 10000 examples",
    ):
        assert words in text


def test_one_run_each_may_be_inconsistent():
    """Which is said, and decides nothing: the variance is only assumed."""
    metric = structs.replace(ACCURACY, examples=10_000)
    found = compare(accuracies(0.9917, metric=metric), accuracies(0.98, metric=metric))
    assert found.level is Level.INCONCLUSIVE
    assert "not consistent if errors are independent" in found.reasons[0]


def test_a_declared_tolerance_does_not_make_one_run_each_a_pass():
    """No spread is known: the next run of either could be anywhere."""
    metric = structs.replace(ACCURACY, tolerance=0.5)
    found = level(accuracies(0.9917, metric=metric), accuracies(0.9914, metric=metric))
    assert found is Level.INCONCLUSIVE


def test_repeating_one_seed_is_not_five_runs():
    """A seeded container run five times says nothing of the spread between seeds."""
    runs = [run(None, test_accuracy=0.9917)] * 5
    author = record(*runs, seed=None)
    assert (author.claims[0].n, author.claims[0].spread) == (1, None)
    other = record(*[run(None, test_accuracy=0.9914)] * 5, seed=None)
    assert level(author, other) is Level.INCONCLUSIVE
    assert level(author, record(*runs, seed=None)) is Level.BIT_IDENTICAL


def test_fresh_seeds_are_judged_alone():
    """Runs of the author's seeds stand on both sides, and would halve the difference."""
    author = accuracies(*FIVE)
    fresh = [run(seed, test_accuracy=0.9) for seed in range(6, 11)]
    nearly = [run(seed, test_accuracy=value + 1e-9) for seed, value in enumerate(FIVE, start=1)]
    for old in (author.runs, nearly):
        verdict = compare(author, record(*old, *fresh))
        (judged,) = verdict.claims
        assert (judged.m, judged.reproducer) == (5, pytest.approx(0.9))
        assert verdict.level is Level.NOT_REPRODUCED
        assert verdict.reasons[-1] == (
            "5 of 10 runs have seeds of the author's: only fresh ones count"
        )


def test_runs_that_repeat_the_authors_bits_bring_no_news():
    """What differs is judged by itself; nothing but repeats is more than statistics can say."""
    author = accuracies(*FIVE)
    verdict = compare(author, record(*author.runs[:2], run(3, test_accuracy=0.9)))
    assert verdict.claims[0].m == 1
    assert verdict.level is Level.NOT_REPRODUCED
    assert verdict.reasons[-1] == (
        "2 of 3 runs repeat the author's bit for bit: only the others count"
    )
    assert level(author, record(*author.runs[:3])) is Level.BIT_IDENTICAL


# -- the formula


def test_the_numbers_of_the_formula():
    """As written down, with the author's spread for one run, and both pooled for more."""
    author = accuracies(*FIVE)
    s = math.sqrt(sum((x - sum(FIVE) / 5) ** 2 for x in FIVE) / 4)
    assert author.claims[0].tolerance == pytest.approx(2 * 2.13184678632665 * s * math.sqrt(1.2))
    (one,) = compare(author, accuracies(0.9913, first=9)).claims
    assert (one.n, one.m, one.df) == (5, 1, 4)
    assert one.spread == pytest.approx(s)
    assert one.near == pytest.approx(2.13184678632665 * s * math.sqrt(1.2))
    assert one.far == pytest.approx(4.60409487134999 * s * math.sqrt(1.2))
    (two,) = compare(author, accuracies(0.9913, 0.9915, first=9)).claims
    pooled = math.sqrt((4 * s**2 + 0.0001**2 * 2) / 5)
    assert (two.m, two.df) == (2, 5)
    assert two.spread == pytest.approx(pooled)
    assert two.error == pytest.approx(pooled * math.sqrt(1 / 5 + 1 / 2))


def test_one_run_of_the_author_and_many_of_the_reproducer():
    """The reproducer's spread stands in; only a declared tolerance makes it decidable."""
    many = accuracies(0.99, 0.9901, 0.9899, 0.99, first=9)
    assert level(accuracies(0.99), many) is Level.INCONCLUSIVE
    declared = accuracies(0.99, metric=structs.replace(ACCURACY, tolerance=0.01))
    assert level(declared, many) is Level.WITHIN_TOLERANCE
    far = accuracies(0.9, metric=structs.replace(ACCURACY, tolerance=0.01))
    assert level(far, many) is Level.NOT_REPRODUCED


def test_the_tolerance_is_the_authors():
    """Declared or not, a reproducer's own setting changes nothing."""
    author = accuracies(*FIVE, metric=structs.replace(ACCURACY, tolerance=0.1))
    strict = structs.replace(ACCURACY, tolerance=0.0)
    assert level(author, accuracies(0.98, first=9, metric=strict)) is Level.WITHIN_TOLERANCE
    assert level(accuracies(*FIVE), accuracies(0.98, first=9)) is Level.NOT_REPRODUCED


def test_no_spread_at_all():
    """Five seeds that gave the very same number leave no room, and need none."""
    author = accuracies(1.0, 1.0, 1.0)
    assert author.claims[0].spread == 0
    assert level(author, accuracies(1.0, first=9)) is Level.WITHIN_TOLERANCE
    assert level(author, accuracies(0.9, first=9)) is Level.NOT_REPRODUCED


def test_equal_numbers_are_no_proof_of_equal_ones():
    """A last digit, or one example more, is within what chance does to the next run."""
    loss = 0.55139712524
    author = record(*(run(seed, test_loss=loss) for seed in range(1, 6)), metrics=(LOSS,))
    digit = compare(author, record(run(9, test_loss=loss - 1e-11), metrics=(LOSS,)))
    assert digit.level is Level.INCONCLUSIVE
    assert level(author, record(run(9, test_loss=0.9), metrics=(LOSS,))) is Level.NOT_REPRODUCED
    counted = Metric(name="test_accuracy", examples=10_000)
    author = accuracies(*[0.99] * 5, metric=counted)
    assert level(author, accuracies(0.9901, first=9, metric=counted)) is Level.INCONCLUSIVE
    assert level(author, accuracies(0.98, first=9, metric=counted)) is Level.NOT_REPRODUCED


def test_times_are_not_claimed_and_make_no_runs_different():
    """No machine takes as long as another; five runs of one seed stay one."""
    runs = [run(None, loss=0.5, seconds=79.5 + extra) for extra in range(5)]
    author = record(*runs, metrics=())
    assert [each.name for each in author.claims] == ["loss"]
    assert author.claims[0].n == 1
    assert level(author, record(run(None, loss=0.5 + 1e-12, seconds=200.0))) is Level.INCONCLUSIVE
    stated = record(*runs, metrics=(Metric(name="seconds", better="lower"),))
    assert [each.name for each in stated.claims] == ["seconds"]


# -- all claims must hold


def test_the_worst_claim_decides():
    """One that fails outweighs any number that hold."""
    both = (ACCURACY, LOSS)
    author = record(
        *(run(s, test_accuracy=a, test_loss=1 - a) for s, a in enumerate(FIVE)), metrics=both
    )

    def other(**metrics):
        return record(run(9, **metrics), metrics=both)

    assert level(author, other(test_accuracy=0.9915, test_loss=0.0085)) is Level.WITHIN_TOLERANCE
    failed = compare(author, other(test_accuracy=0.9915, test_loss=0.5))
    assert failed.level is Level.NOT_REPRODUCED
    assert len(failed.reasons) == 1
    assert failed.reasons[0].startswith("test_loss: ")
    mixed = other(test_accuracy=0.9999, test_loss=0.5)
    assert compare(author, mixed).wording == "NOT REPRODUCED"


def test_a_claim_that_was_not_measured_does_not_hold():
    """The metric has another name, or is missing in one of the runs."""
    author = accuracies(*FIVE)
    found = compare(author, record(run(9, accuracy=0.9915)))
    assert found.level is Level.INCONCLUSIVE
    assert "in 0 of 1 runs" in found.reasons[0]
    half = record(run(8, test_accuracy=0.9915), run(9, accuracy=0.9915))
    assert "in 1 of 2 runs" in compare(author, half).reasons[0]


def test_a_metric_that_diverged_is_not_reproduced():
    """NaN is no number that could be near another."""
    found = compare(accuracies(*FIVE), record(replace(run(9), diverged=("test_accuracy",))))
    assert found.wording == "NOT REPRODUCED"
    assert "NaN" in found.reasons[0]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (replace(run(1), diverged=("test_accuracy",)), Level.NOT_REPRODUCED),
        (run(1, accuracy=0.9915), Level.INCONCLUSIVE),
    ],
    ids=["NaN", "missing"],
)
def test_a_run_that_does_not_count_in_the_mean_must_have_come_out_all_the_same(bad, expected):
    """Fresh seeds are judged alone, but no run of the author's seeds may be no number."""
    fresh = [run(seed, test_accuracy=value) for seed, value in enumerate(FIVE, start=6)]
    assert level(accuracies(*FIVE), record(*fresh)) is Level.WITHIN_TOLERANCE
    assert level(accuracies(*FIVE), record(bad, *fresh)) is expected


def test_a_record_that_claims_nothing_is_not_confirmed():
    """There is nothing to judge."""
    empty = record(replace(run(1), outputs={}), claims=())
    assert level(empty, empty) is Level.INCONCLUSIVE


# -- the same thing


def test_another_command_is_not_a_reproduction():
    """It is said which parameter differs, and nothing passes."""
    author = accuracies(*FIVE, parameters={"lr": "1.0"}, command=("python", "main.py", "--lr=1.0"))
    other = accuracies(*FIVE, parameters={"lr": "0.1"}, command=("python", "main.py", "--lr=0.1"))
    found = compare(author, other)
    assert found.level is Level.INCONCLUSIVE
    assert "not a reproduction of the same thing" in found.reasons[0]
    assert "lr is 0.1, and the author's 1.0" in found.reasons[0]


def test_other_data_are_not_a_reproduction():
    """A file of the same name with other bytes."""
    one = DataUsed(name="/data/x", digest=Digest.of(b"x"), size=1)
    found = compare(
        accuracies(*FIVE, data=(one,)),
        accuracies(*FIVE, data=(replace(one, digest=Digest.of(b"y")),)),
    )
    assert found.level is Level.INCONCLUSIVE
    assert "the data differ: /data/x" in found.reasons[0]


def test_what_the_caller_added_is_not_in_the_image():
    """Folders of the machine may hold another program, and a variable another setting."""
    author = accuracies(*FIVE)
    for other, told_of in (
        (accuracies(*FIVE, mounts=("/workspace/main.py",)), "/workspace/main.py"),
        (accuracies(*FIVE, variables=("LR",)), "LR"),
    ):
        found = compare(author, other)
        assert found.level is Level.INCONCLUSIVE
        assert found.reasons[0].endswith(f" {told_of}")
    mounted = accuracies(*FIVE, mounts=("/data",))
    assert "the author's runs alone had folders" in compare(mounted, author).reasons[0]
    assert level(mounted, mounted) is Level.BIT_IDENTICAL


def test_a_variable_of_the_authors_is_told_where_nothing_passes():
    """Where the numbers are the same without it, it does not matter."""
    author = accuracies(*FIVE, variables=("NCCL_DEBUG",))
    assert level(author, accuracies(*FIVE)) is Level.BIT_IDENTICAL
    failed = compare(author, accuracies(0.9, first=9))
    assert failed.level is Level.NOT_REPRODUCED
    assert failed.reasons[-1].endswith("that these had not: NCCL_DEBUG")


def test_another_image_never_passes():
    """It may fail, and it may agree: that is said, and is no run of what was published."""
    other = replace(IMAGE, manifest=Digest.of(b"another"))
    author = accuracies(*FIVE)
    for same in (accuracies(*FIVE, image=other), accuracies(0.9913, first=9, image=other)):
        found = compare(author, same)
        assert found.level is Level.INCONCLUSIVE
        assert "the images differ" in found.reasons[0]
    assert level(author, accuracies(0.9, first=9, image=other)) is Level.NOT_REPRODUCED


def test_another_platform_of_the_same_index_is_the_same_publication():
    """The author trained on amd64, and the reproducer on arm64."""
    index = Digest.of(b"index")
    author = accuracies(*FIVE, image=replace(IMAGE, index=index))
    arm = replace(IMAGE, manifest=Digest.of(b"arm"), index=index, platform="linux/arm64")
    assert level(author, accuracies(0.9913, first=9, image=arm)) is Level.WITHIN_TOLERANCE
