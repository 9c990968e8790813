"""What commands print of strangers' words."""

from __future__ import annotations

import json

import pytest

from torchship.cli.common import check_command, complain
from torchship.cli.images import _print_json
from torchship.cli.run import _tell
from torchship.errors import MetricsError, TorchshipError, UsageError
from torchship.pipeline import Outcome

STEERING = "\x1b[2J\x9b31m\u202e\u2028"


def test_no_line_of_an_error_begins_like_one_of_ours(capsys):
    """A program's explanation keeps its lines, and the further ones are indented."""
    complain(TorchshipError("no:\n  - a\nreproduced", hint="do\nthis" + STEERING))
    assert capsys.readouterr().err == (
        "torchship: no:\n    - a\n  reproduced\n  do\n  this\ufffd[2J\ufffd31m\ufffd\ufffd\n"
    )


def test_json_holds_nothing_that_a_terminal_obeys(capsys):
    """What people can read stays readable, the rest is escaped: it is the same JSON."""
    value = {"label": "Größe 🚀 a\nb" + STEERING + "\U000e0001", "lines": [1, "\u00a0"]}
    _print_json(value)
    printed = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in printed)
    assert "Größe 🚀 a\\nb\\u001b[2J\\u009b" in printed
    assert json.loads(printed) == value


def test_names_of_metrics_are_text(capsys):
    """The image that declares them may be a stranger's."""
    _tell(Outcome(status=0, seconds=1.0, metrics={"a" + STEERING: 1.0}, diverged=("b\nc",)))
    assert capsys.readouterr().err.splitlines() == [
        "a\ufffd[2J\ufffd31m\ufffd\ufffd: 1",
        "b\ufffdc: not a number, or infinite: nothing compares with that",
    ]


def test_metrics_that_could_not_be_read_are_one_line(capsys):
    """They are no error of the command, and what matched may be a stranger's word."""
    fault = MetricsError("metrics.acc matched 12,345" + STEERING, hint="put one group")
    _tell(Outcome(status=0, seconds=1.0, metrics={}, unread=fault))
    told = "no metrics: metrics.acc matched 12,345\ufffd[2J\ufffd31m\ufffd\ufffd; put one group"
    assert capsys.readouterr().err == told + "\n"


@pytest.mark.parametrize(
    ("own", "whole"),
    [(("python", "train.py"), "python train.py --name 'a b'"), ((), "PROGRAM --name 'a b'")],
)
def test_options_alone_are_no_command(own, whole):
    """Whoever leaves the program out is shown the line with it."""
    with pytest.raises(UsageError, match="--name is an option") as caught:
        check_command(("--name", "a b"), own)
    assert caught.value.hint == f"what follows -- is the whole command: -- {whole}"
    check_command((), own)
    check_command(("python", "--name"), own)
