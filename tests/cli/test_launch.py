"""What `torchship launch` takes, before anything is asked of a cluster."""

import signal
import subprocess
import sys

import click
import pytest
from tests.launch.test_job import IMAGE, REFERENCE

from torchship.cli import launch as command
from torchship.cli.launch import parse_time
from torchship.errors import UsageError
from torchship.launch import published


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("12h", 43200), ("2d", 172800), ("1:30:00", 5400), (None, None)],
)
def test_an_amount_of_time_is_read(text, seconds):
    """As people write it, in seconds."""
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "30", "-1h", "1:60:00", "1:30", "1h30m", "\u0663h"])
def test_what_is_no_amount_of_time_is_refused(text):
    """A bare number is refused, too: Slurm would count minutes, and others seconds."""
    with pytest.raises(UsageError, match="not an amount of time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--on=slurm", "--kind=job"), "--kind is for Kubernetes alone"),
        (("--on=kubernetes", "--partition=p"), "--partition is for Slurm alone"),
        (("--on=slurm", "-e", "NAME"), "not of the form NAME=VALUE"),
        (("--on=slurm", "--seeds=1,1"), "list of different numbers"),
        (("--on=slurm", "--port=65535", "--max-restarts=1"), "too few ports above it"),
        (("--on=elsewhere",), "'elsewhere' is not one of"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(arguments, told):
    """They are told before a registry or a cluster is asked for anything."""
    words = (sys.executable, "-m", "torchship", "launch", "127.0.0.1:9/me/mnist:v1", *arguments)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_signal_between_two_steps_ends_the_job(monkeypatch, tmp_path):
    """From the first use of a cluster to the last, SIGTERM is an interruption as Ctrl-C is."""
    told = []

    class Cluster:
        def prepare(self, image, *, progress):
            signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)

        def close(self):
            told.append("closed")

    monkeypatch.setenv("TORCHSHIP_HOME", str(tmp_path))
    found = published.Found(reference=REFERENCE, top=IMAGE.descriptor, image=IMAGE)
    monkeypatch.setattr(published, "find", lambda *_, **__: found)
    monkeypatch.setattr(command, "_cluster", lambda *_: Cluster())
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(click.Abort):
        command.launch.main([str(REFERENCE), "--on=slurm"], standalone_mode=False)
    assert told == ["closed"]
    assert signal.getsignal(signal.SIGTERM) == before
