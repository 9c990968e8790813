"""Verdicts in words, as the command line prints them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

from click.testing import CliRunner
from tests.runs.records import accuracies, record, run, whole

from torchship.cli import torchship
from torchship.runs import statement

NASTY = "<script>alert(1)</script>\x1b]0;owned\x07\x9b2J\u202e\r\n"


def poisoned(value):
    """Return a record with that text in every string that takes any."""
    if isinstance(value, str):
        return NASTY
    if is_dataclass(value):
        kept = {"hex", "name", "better", "tolerance_from", "profile", "source"}
        changed = {
            each.name: poisoned(getattr(value, each.name))
            for each in fields(value)
            if each.name not in kept
        }
        return replace(value, **changed)
    if isinstance(value, tuple):
        return tuple(poisoned(item) for item in value)
    return value


def compare(tmp_path, author, reproducer, *options):
    """Compare two records on the command line."""
    for name, found in (("author", author), ("reproducer", reproducer)):
        (tmp_path / name).write_bytes(statement.encode(found))
    return CliRunner().invoke(
        torchship, ["compare", str(tmp_path / "author"), str(tmp_path / "reproducer"), *options]
    )


def test_nothing_of_a_strangers_record_reaches_the_terminal_as_it_is(tmp_path):
    """Whatever stands in a record, what is printed are letters and ends of lines."""
    author = whole()
    claims, runs = author.claims, author.runs
    other = replace(
        poisoned(replace(author, claims=(), runs=(), seed=None)),
        claims=claims,
        runs=runs,
        seed=author.seed,
        command=author.command,
    )
    for pair in ((author, other), (other, author), (other, replace(other, command=(NASTY,)))):
        shown = compare(tmp_path, *pair)
        assert shown.exit_code in (0, 1, 3), shown.output
        assert shown.output.replace("\n", "").isprintable()


def test_the_exit_code_is_the_verdicts(tmp_path):
    """Each level, by the command."""
    author = accuracies(0.99, 0.991, 0.992)
    for reproducer, word, code in (
        (author, "BIT-IDENTICAL", 0),
        (accuracies(0.991, first=9), "WITHIN TOLERANCE", 0),
        (accuracies(0.5, first=9), "NOT REPRODUCED", 1),
        (accuracies(0.98, first=9), "INCONCLUSIVE", 3),
        (record(run(1, status=1)), "COULD NOT RUN", 4),
    ):
        shown = compare(tmp_path, author, reproducer)
        assert (shown.output.partition(":")[0], shown.exit_code) == (word, code)


def test_every_verdict_says_what_it_does_not_show(tmp_path):
    """In its last lines."""
    author = accuracies(0.99, 0.991, 0.992)
    for reproducer in (author, accuracies(0.5, first=9), record(run(1, status=1))):
        *_, general, special = compare(tmp_path, author, reproducer).output.splitlines()
        assert general.startswith("A verdict says whether the same image gives the same numbers")
        assert special


def test_a_too_good_result_is_told_as_such(tmp_path):
    """It is another result."""
    author = accuracies(0.9, 0.901, 0.902)
    shown = compare(tmp_path, author, accuracies(0.99, 0.99, first=9))
    assert shown.output.startswith("NOT REPRODUCED (better): test_accuracy: ")


def test_the_same_bits_are_shown_by_their_seeds(tmp_path):
    """The mean of all the author's runs is no neighbour for the value of one."""
    author = accuracies(0.9, 0.8, 0.7)
    shown = compare(tmp_path, author, replace(author, runs=author.runs[1:2], claims=()))
    assert shown.exit_code == 0
    assert "  seed 2      0.8, there and here\n" in shown.output
    assert "  all of the author's: 0.8 (standard deviation 0.1), 3 runs\n" in shown.output
    assert "difference" not in shown.output
