"""Words that torchship does not have, and what it says to whoever gives them."""

from __future__ import annotations

import pytest

from torchship.cli import ending, foreign, torchship


def said(capsys, *words: str) -> str:
    """Give torchship a command line that it does not take; return what it says."""
    assert ending.status(lambda: torchship(words, standalone_mode=False)) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "meant"), [("rnu", "run"), ("buld", "build"), ("recrod", "record")]
)
def test_a_mistyped_command_is_guessed(capsys, word, meant):
    """As mistyped options are."""
    assert f"No such command '{word}'. Did you mean {meant}?" in said(capsys, word)


def test_what_is_like_no_command_is_not_guessed(capsys):
    """The commands are one --help away."""
    told = said(capsys, "qqqq")
    assert "No such command 'qqqq'." in told
    assert "mean" not in told


def test_dockers_rm_is_not_needed(capsys):
    """What it does is done always."""
    told = said(capsys, "run", "--rm", ".")
    assert told.endswith("  --rm is not needed: no container is left behind\n")
    assert "behind `--`" not in told


@pytest.mark.parametrize("words", [("-d",), ("-p", "8080:80"), ("--name", "x"), ("-w", "/")])
def test_dockers_options_that_are_not_here(capsys, words):
    """They may have been meant for the program, too."""
    told = said(capsys, "run", *words, ".")
    assert f"torchship has nothing like {words[0]}: save the image, `docker load` it" in told
    assert foreign.BEHIND in told


def test_variables_of_a_recording_are_settings(capsys):
    """What is published is the image with its own variables."""
    told = said(capsys, "record", "-e", "A=1", ".")
    assert 'environment = {NAME = "value"} in [tool.torchship] sets variables of the' in told
    assert "behind `--`" not in told


def test_other_options_go_behind_dashes(capsys):
    """They are the program's."""
    assert said(capsys, "record", ".", "--epochs", "1").endswith(f"  {foreign.BEHIND}\n")
