"""What `reproduce` asks an engine for: a stranger's program gets its own directory, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs
from tests.runs.records import accuracies, whole
from tests.runs.test_recording import Engine, gives, image

from torchship.digest import Digest
from torchship.engines.gpu import Gpus
from torchship.engines.request import Request
from torchship.errors import UsageError
from torchship.progress import SILENT
from torchship.runs import profile, reproducing
from torchship.runs.publishing import Published, read
from torchship.runs.record import Determinism
from torchship.runs.run import RecordDirectory
from torchship.runs.statement import encode
from torchship.runs.verdict import Level, compare


class Watched(Engine):
    """An engine that remembers all that it was asked for: the questions, too."""

    def __init__(self, program):
        super().__init__(program)
        self.asked: list[Request] = []

    def run(self, request):
        """Remember, and do."""
        self.asked.append(request)
        return super().run(request)


@pytest.fixture
def again(tmp_path):
    """Return a function that reproduces a record: what the engine was asked, and the new record."""

    def start(author, program, *, runs=1, network=False):
        engine = Watched(program)
        directory = RecordDirectory.at(tmp_path / "mine")
        asked = reproducing.request(
            author, image(), network=network, processors=None, memory=None, gpus=Gpus()
        )
        made = reproducing.reproduce(
            Published(record=author, raw=encode(author)),
            asked,
            engine,
            runs=runs,
            name="me/mnist",
            index=Digest.of(b"image"),
            directory=directory,
            progress=SILENT,
        )
        return engine.asked, made

    return start


def leaves_tensors(request):
    """Be a program that also writes a file that torch will be asked about."""
    (request.output / "model.pt").write_bytes(b"tensors")
    return gives(seed_1=0.99)(request)


def test_the_program_sees_its_own_directory_and_nothing_else(again, tmp_path):
    """Whatever a record says: no mounts but of the outputs, no network, no terminal, no input."""
    author = replace(
        whole(),
        network=False,
        variables=("HOME", "LD_PRELOAD"),
        mounts=("/etc", "/root"),
        command=("python", "main.py", "--lr", "1.0"),
    )
    asked, made = again(author, leaves_tensors, runs=2)
    mine = tmp_path / "mine"
    own = [mine / "seed-1" / "output", mine / "seed-2" / "output"]
    assert [each.output for each in asked if each.output] == own
    mounts = [mount for each in asked for mount in each.mounts]
    assert [mount.source for mount in mounts] == own
    assert all(mount.read_only and mount.target.startswith("/run/torchship/") for mount in mounts)
    for each in asked:
        assert not each.network and not each.interactive and not each.tty
        assert each.image == image()
        assert each.environment.keys() <= profile.NAMES
        assert each.gpus == Gpus()
        assert each.log in (None, mine / "seed-1" / "stdout.log", mine / "seed-2" / "stdout.log")
        assert each.stdout != 1  # the verdict's
    programs = [each.command for each in asked if each.output]
    assert programs == [(*author.command, "--seed", str(seed)) for seed in (1, 2)]
    # a field that a request gets later has to be thought of here
    assert {each.name for each in structs.fields(Request)} == {
        *("image", "command", "environment", "mounts", "output", "network", "interactive"),
        *("tty", "processors", "memory", "gpus", "log", "stdout", "stderr"),
    }
    assert read(mine).record == made
    assert read(mine / "author.json").record == author


@pytest.mark.parametrize("profile_of", ["default", "strict"])
def test_only_the_strict_profile_sets_variables_and_only_its_own(again, profile_of):
    """A record that names others cannot set them."""
    environment = {"OMP_NUM_THREADS": "2", "LD_PRELOAD": "/output/x.so", "PYTHONPATH": "/output"}
    author = replace(
        accuracies(0.99, command=("python", "main.py")),
        determinism=Determinism(profile=profile_of, environment=environment),
    )
    asked, _ = again(author, gives())
    expected = {"OMP_NUM_THREADS": "2"} if profile_of == "strict" else {}
    assert [dict(each.environment) for each in asked] == [expected] * len(asked)


def test_the_network_is_given_where_both_had_and_allow_it(again):
    """The author's runs had it: it is an error not to allow it; else it is never given."""
    author = replace(accuracies(0.99), network=True)
    with pytest.raises(UsageError, match="the author's runs had the network"):
        again(author, gives())
    asked, made = again(author, gives(), network=True)
    assert [each.network for each in asked if each.output] == [True]
    assert made.network
    # the questions need none
    assert not any(each.network for each in asked if not each.output)


def test_a_network_that_the_author_did_not_have_is_not_given(again):
    """--network allows, and does not ask for it."""
    asked, made = again(accuracies(0.99), gives(), network=True)
    assert not made.network
    assert not any(each.network for each in asked)


def test_the_authors_seeds_come_first():
    """So that bits can be compared; further runs get further seeds."""
    author = accuracies(0.99, 0.98, first=5)
    assert reproducing.seeds(author, 1) == (5,)
    assert reproducing.seeds(author, 4) == (5, 6, 7, 8)
    unseeded = replace(author, runs=tuple(replace(run, seed=None) for run in author.runs))
    assert reproducing.seeds(unseeded, 2) == (None, None)


def test_the_same_numbers_are_the_same_bits(again):
    """What comes of it can be judged."""
    author = replace(accuracies(0.99), command=image().command, claims=())
    _, made = again(author, gives(seed_1=0.99))
    outputs = replace(author, runs=tuple(replace(run, outputs={}) for run in author.runs))
    mine = replace(made, runs=tuple(replace(run, outputs={}) for run in made.runs))
    assert compare(outputs, mine).level is Level.BIT_IDENTICAL
