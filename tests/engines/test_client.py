"""The command-line program of an engine; here it is a script."""

import time

import pytest

from torchship.engines import client
from torchship.engines.client import Client
from torchship.engines.foreground import Foreground
from torchship.engines.relay import Streams
from torchship.errors import EngineError


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return a function that makes a program `docker` which does as told, and notes its words."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(**actions):
        cases = "".join(f"{word}) {action};;\n" for word, action in actions.items())
        script = f'#!/bin/sh\necho "$@" >> {tmp_path}/words\ncase $1 in\n{cases}esac\n'
        (tmp_path / "docker").write_text(script)
        (tmp_path / "docker").chmod(0o755)
        return Client("docker")

    return make


def test_a_small_file_of_an_image_is_read(program, tmp_path):
    """By a container that never runs, and is gone afterwards with its volumes."""
    found = program(create="echo c1", cp="echo tar").copied("image", "/etc/passwd", 100)
    assert found == b"tar\n"
    words = (tmp_path / "words").read_text().splitlines()
    assert words == [
        "create --network=none image true",
        "cp --follow-link c1:/etc/passwd -",
        "rm --force --volumes c1",
    ]
    assert program(create="echo c1", cp="echo tar; exit 1").copied("image", "/x", 100) == b""
    assert program(create="echo c1", cp="echo tar").copied("image", "/x", 4) == b"tar\n"


def test_of_a_large_file_no_more_is_read_than_the_limit(program, tmp_path):
    """An image decides how large it is: the program is ended, and does not write it all."""
    endless = f"head -c 50000000 /dev/zero && touch {tmp_path}/ended"
    assert program(create="echo c1", cp=endless).copied("image", "/etc/passwd", 1000) == b""
    assert not (tmp_path / "ended").exists()
    assert (tmp_path / "words").read_text().endswith("rm --force --volumes c1\n")


def test_a_program_that_says_nothing_is_not_waited_for(program, tmp_path, monkeypatch):
    """A daemon that is stuck is told as that, and the container still goes."""
    monkeypatch.setattr(client, "_PATIENCE", 0.5)
    began = time.monotonic()
    with pytest.raises(EngineError, match="`docker cp` gave no answer"):
        program(create="echo c1", cp="exec sleep 60").copied("image", "/etc/passwd", 1000)
    assert time.monotonic() - began < 20
    assert (tmp_path / "words").read_text().endswith("rm --force --volumes c1\n")


def test_a_client_that_was_killed_leaves_no_volumes(program, tmp_path):
    """What it would have removed with its container is removed with it."""
    ended = Foreground(
        client=program(run="kill -9 $$"),
        name="torchship-1",
        arguments=("image",),
        streams=Streams(stdout=1, stderr=2),
    ).run({})
    assert ended.status == 137
    assert (tmp_path / "words").read_text().endswith("rm --force --volumes torchship-1\n")
