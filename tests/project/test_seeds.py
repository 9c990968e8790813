"""How a seed reaches a program."""

import pytest

from torchship.project import seeds

COMMAND = ("python", "main.py", "--epochs", "1")


@pytest.mark.parametrize(
    ("template", "words", "variables"),
    [
        ("--seed {seed}", ("--seed", "7"), {}),
        ("--seed={seed}", ("--seed=7",), {}),
        ("trainer.seed={seed}", ("trainer.seed=7",), {}),
        ("-s '{seed}'", ("-s", "7"), {}),
        ("SEED={seed}", (), {"SEED": "7"}),
    ],
)
def test_a_seed_is_given_and_found_again(template, words, variables):
    """What `seeded` does, `unseeded` undoes."""
    assert seeds.fault(template) is None
    found = seeds.seeded(COMMAND, template, 7)
    assert found.command == COMMAND + words
    assert found.environment == variables
    assert seeds.unseeded(found.command, found.environment, template) == (COMMAND, 7)


def test_a_command_without_a_seed_stays_as_it_is():
    """Whether no seed is given, or there is no way to give one."""
    assert seeds.seeded(COMMAND, None, 7).command == COMMAND
    assert seeds.seeded(COMMAND, "--seed {seed}", None).command == COMMAND
    assert seeds.unseeded(COMMAND, {}, "--seed {seed}") == (COMMAND, None)
    assert seeds.unseeded(COMMAND, {"SEED": "x"}, "SEED={seed}") == (COMMAND, None)
    assert seeds.unseeded(COMMAND, {}, None) == (COMMAND, None)


def test_the_last_seed_of_a_command_counts():
    """As it does in argparse."""
    command = (*COMMAND, "--seed", "1", "--seed", "-2")
    assert seeds.unseeded(command, {}, "--seed {seed}") == ((*COMMAND, "--seed", "1"), -2)


@pytest.mark.parametrize("template", ["", "--seed", "{seed} {seed}", "'{seed}", "a\n{seed}", "\0"])
def test_a_template_that_gives_no_seed_is_faulty(template):
    """It is said what to write instead, or what is wrong."""
    assert seeds.fault(template)
