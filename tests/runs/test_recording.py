"""Several runs of an image, by an engine of the test's own."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from torchship.digest import Descriptor, Digest
from torchship.engines.request import Request
from torchship.errors import EngineError, ManifestError, MetricsError, RecordError, RunError
from torchship.oci.assemble import DATA, METRICS, SEED
from torchship.oci.image import Image
from torchship.platform import Platform
from torchship.progress import SILENT
from torchship.runs import capacity, inside, statement, typed
from torchship.runs.execution import declared
from torchship.runs.recording import Plan, check, measured, record
from torchship.runs.run import RecordDirectory
from torchship.runs.statement import encode, parse

FACTS = {
    "hardware": {"machine": "x86_64", "processors": 2, "vendor": "GenuineIntel"},
    "software": {"python": "3.11.2", "packages": {"torch": "2.13.0"}},
    "environment": {"OMP_NUM_THREADS": "2"},
}
TORCH = {"hardware": {"instructionSet": "AVX2"}, "software": {"torch": "2.13.0"}, "threads": 2}


class Engine:
    """An engine that runs no image: its program is a function of the request."""

    name = "native"

    def __init__(self, program, data=None, facts=FACTS):
        self.program, self.data, self.facts = program, data or {}, facts
        self.requests: list[Request] = []

    def missing(self):
        """Lack nothing."""

    def prepare(self, image, *, progress=SILENT):
        """Need nothing."""

    def run(self, request):
        """Answer the questions of `inside`, and run the program otherwise."""
        if request.command[0] != inside.PYTHON:
            self.requests.append(request)
            request.log.write_text("")
            return self.program(request)
        if self.facts is None:
            raise EngineError("there is no python3")
        source = request.command[3]
        told = {**self.facts, "data": self.data} if "/proc/cpuinfo" in source else TORCH
        if "safetensors" in source:
            told = {path: str(Digest.of(b"tensors")) for path in request.command[4:]}
        os.write(request.stdout, json.dumps(told).encode())
        return 0


def gives(**by_seed):
    """Return a program that measures what is given for its seed: ``seed_1=0.99``."""

    def program(request):
        seed = request.command[-1]
        value = by_seed.get(f"seed_{seed}", 0.5)
        (request.output / "metrics.json").write_text(json.dumps({"test_accuracy": value}))
        return 0

    return program


def image(**labels) -> Image:
    """Return an image with such labels."""
    document = Descriptor(media_type="application/json", digest=Digest.of(b"image"), size=1)
    return Image(
        platform=Platform("linux", "amd64"),
        descriptor=document,
        config=document,
        layers=(),
        command=("python", "main.py", "--lr", "1.0"),
        labels={
            SEED: "--seed {seed}",
            METRICS: '{"test_accuracy": {"name": "test_accuracy", "better": "higher"}}',
            **labels,
        },
    )


@pytest.fixture
def recorded(tmp_path):
    """Return a function that records an image of the test's own."""

    def start(
        program, *, seeds=(1, 2, 3), found=None, engine=None, first=None, progress=SILENT, **plan
    ):
        found = found or image()
        engine = engine or Engine(program)
        asked = Plan(request=Request(image=found), seeds=seeds, name="mnist", **plan)
        directory = RecordDirectory.at(tmp_path / "record")
        stated = declared(found)
        made = record(
            asked, engine, declared=stated, directory=directory, progress=progress, first=first
        )
        assert parse(encode(made), "it") == made
        return made

    return start


def test_each_run_gets_its_seed_and_its_directory(recorded, tmp_path):
    """The seed is no part of the command that is recorded, nor of its parameters."""
    engine = Engine(gives(seed_1=0.98, seed_2=0.99, seed_3=1.0))
    made = recorded(None, engine=engine)
    assert [request.command[-2:] for request in engine.requests] == [
        ("--seed", "1"),
        ("--seed", "2"),
        ("--seed", "3"),
    ]
    assert made.command == ("python", "main.py", "--lr", "1.0")
    assert made.parameters == {"lr": "1.0"}
    assert [run.metrics["test_accuracy"] for run in made.runs] == [0.98, 0.99, 1.0]
    assert (made.claims[0].n, made.claims[0].mean) == (3, pytest.approx(0.99))
    assert made.hardware.instruction_set == "AVX2"
    assert (made.determinism.threads, made.determinism.environment) == (2, {"OMP_NUM_THREADS": "2"})
    assert sorted(path.name for path in (tmp_path / "record").iterdir()) == [
        ".torchship-run",
        "seed-1",
        "seed-2",
        "seed-3",
    ]


def test_a_repeat_tells_whether_the_program_is_deterministic(recorded):
    """It is no run of its own: it is not counted."""
    made = recorded(gives(), repeat=True)
    assert made.determinism.repeat.identical
    assert len(made.runs) == 3


def test_a_repeat_that_differs_names_what_does(recorded):
    """A program that draws without its seed."""
    values = iter((0.1, 0.2))

    def program(request):
        (request.output / "metrics.json").write_text(json.dumps({"test_accuracy": next(values)}))
        return 0

    repeat = recorded(program, seeds=(7,), repeat=True).determinism.repeat
    assert (repeat.seed, repeat.identical) == (7, False)
    assert repeat.differs == ("metrics.json", "test_accuracy")


def test_the_first_failure_ends_it(recorded, tmp_path):
    """The record has the failed run; nobody can publish it."""
    made = recorded(lambda request: 3 if request.command[-1] == "2" else 0)
    assert [run.status for run in made.runs] == [0, 3]
    with pytest.raises(RunError, match="the run with seed 2 ended with exit status 3"):
        check(made, declared(image()), RecordDirectory(path=tmp_path))


def test_ctrl_c_tells_what_there_is(recorded, tmp_path):
    """Hours of finished runs are not to be searched for, nor taken for a record."""

    def program(request):
        if request.command[-1] == "2":
            raise KeyboardInterrupt
        return gives()(request)

    heard = Heard()
    with pytest.raises(KeyboardInterrupt):
        recorded(program, progress=heard)
    assert heard.lines[-1] == (
        f"stopped after 1 of 3 runs: no record was made; what there is of them is in "
        f"{tmp_path / 'record'}"
    )
    assert (tmp_path / "record/seed-1/output/metrics.json").is_file()


def test_ctrl_c_before_the_first_run_leaves_nothing(recorded, tmp_path):
    """No directory is named, since there is none."""

    class Stopped(Engine):
        def run(self, request):
            raise KeyboardInterrupt

    heard = Heard()
    with pytest.raises(KeyboardInterrupt):
        recorded(None, engine=Stopped(None), progress=heard)
    assert heard.lines[-1] == "stopped after 0 of 3 runs: no record was made"
    assert not (tmp_path / "record").exists()


@pytest.mark.parametrize("network", [False, True])
def test_a_failure_for_want_of_a_network_is_told(recorded, tmp_path, network):
    """With the option that gives it, and not to those who gave it."""
    offline = "socket.gaierror: [Errno -3] Temporary failure in name resolution\n"

    def program(request):
        request.log.write_text(offline)
        return 1

    made = replace(recorded(program), network=network)
    with pytest.raises(RunError, match="seed 1 ended with exit status 1") as caught:
        check(made, declared(image()), RecordDirectory(path=tmp_path / "record"))
    assert ("--network" in caught.value.hint) is not network
    assert str(tmp_path / "record") in caught.value.hint


def test_a_metric_that_is_not_there_cannot_be_published(recorded, tmp_path):
    """It is told which one, and where it is looked for."""
    made = recorded(lambda request: 0)
    with pytest.raises(MetricsError, match="test_accuracy"):
        check(made, declared(image()), RecordDirectory(path=tmp_path))


def test_a_record_without_metrics_cannot_be_published(recorded, tmp_path):
    """There is nothing to judge a reproduction by."""
    plain = image(**{METRICS: "{}"})
    made = recorded(lambda request: 0, found=plain)
    with pytest.raises(MetricsError, match="no metrics"):
        check(made, declared(plain), RecordDirectory(path=tmp_path))


class Heard:
    """A progress that keeps what it is told."""

    task = staticmethod(SILENT.task)

    def __init__(self):
        self.lines = []

    def say(self, line):
        """Keep a line."""
        self.lines.append(line)


@pytest.mark.parametrize("metrics", ["{}", image().labels[METRICS]])
def test_why_a_later_runs_metrics_could_not_be_read_is_told(recorded, tmp_path, metrics):
    """At once, and where nothing can be published for it; the other runs say nothing of it."""
    found = image(**{METRICS: metrics})

    def program(request):
        done = gives()(request)
        if request.command[-1] == "2":
            (request.output / "metrics.json").write_text('{"test_accuracy": 0.')
        return done

    heard = Heard()
    made = recorded(program, found=found, first=measured, progress=heard)
    assert [sorted(run.metrics) for run in made.runs] == [["test_accuracy"], [], ["test_accuracy"]]
    told = [line for line in heard.lines if "is not JSON" in line]
    assert len(told) == 1
    assert told[0].startswith("seed 2 (2 of 3): no metrics in ")
    with pytest.raises(MetricsError, match=r"seed-2/output/metrics\.json is not JSON") as caught:
        check(made, declared(found), RecordDirectory(path=tmp_path / "record"))
    assert "test_accuracy" in caught.value.hint


def test_names_in_what_is_told_of_metrics_steer_no_terminal(recorded):
    """The file of a metric is named by the image, which may be a stranger's."""
    file = "\x1b[2J.json"
    found = image(**{METRICS: json.dumps({"acc": {"name": "acc", "file": file}})})
    heard = Heard()

    def program(request):
        (request.output / file).write_text("{")
        return 0

    recorded(program, found=found, progress=heard)
    assert any("is not JSON" in line for line in heard.lines)
    assert all(line.isprintable() for line in heard.lines)


def test_data_are_checked_before_and_after(recorded):
    """What was found in the container is in the record."""
    digest, size = Digest.of(b"x"), 1
    found = image(**{DATA: json.dumps({"/data/x": str(digest)})})
    right = {"digest": str(digest), "size": size}
    made = recorded(None, found=found, engine=Engine(gives(), data={"/data/x": right}))
    assert [(file.name, file.digest) for file in made.data] == [("/data/x", digest)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"/data/x": {"digest": str(Digest.of(b"y")), "size": 1}}, "damaged, or another"),
        ({"/data/x": None}, "is not there"),
        ({}, "is not there"),
        ({"/data/x": "a lie"}, "is not there"),
    ],
)
def test_damaged_data_end_it_before_anything_runs(recorded, tmp_path, data, words):
    """Every run of them would be another experiment."""
    found = image(**{DATA: json.dumps({"/data/x": str(Digest.of(b"x"))})})
    engine = Engine(gives(), data=data)
    with pytest.raises(RunError, match=words):
        recorded(None, found=found, engine=engine)
    assert engine.requests == []
    assert not (tmp_path / "record").exists()


def test_data_that_change_while_it_runs(recorded):
    """What was there before is looked at again afterwards."""
    found = image(**{DATA: json.dumps({"/data/x": str(Digest.of(b"x"))})})
    engine = Engine(None, data={"/data/x": {"digest": str(Digest.of(b"x")), "size": 1}})

    def program(request):
        engine.data = {"/data/x": {"digest": str(Digest.of(b"y")), "size": 1}}
        return 0

    engine.program = program
    with pytest.raises(RunError, match="after the runs, the data file /data/x is") as caught:
        recorded(None, found=found, engine=engine)
    assert "TORCHSHIP_OUTPUT" in caught.value.hint


def test_data_that_nobody_can_look_at_end_it_in_the_engines_words(recorded):
    """What a cluster refuses is told as it tells it, before anything runs."""
    found = image(**{DATA: json.dumps({"/data/x": str(Digest.of(b"x"))})})
    engine = Engine(gives(), facts=None)
    with pytest.raises(EngineError, match="cannot be checked: there is no python3"):
        recorded(None, found=found, engine=engine)
    assert engine.requests == []


def test_runs_are_not_lost_where_nobody_can_look_again(recorded):
    """The time that a cluster gives may be over when the training is."""
    found = image(**{DATA: json.dumps({"/data/x": str(Digest.of(b"x"))})})
    engine = Engine(None, data={"/data/x": {"digest": str(Digest.of(b"x")), "size": 1}})

    def program(request):
        engine.facts = None
        return gives()(request)

    engine.program = program
    made = recorded(None, found=found, engine=engine, seeds=(1,))
    assert [run.status for run in made.runs] == [0]
    assert [file.name for file in made.data] == ["/data/x"]


def test_an_image_without_python_is_recorded_without_facts(recorded):
    """Nobody looked: that is what the record says."""
    made = recorded(None, engine=Engine(gives(), facts=None))
    assert (made.hardware, made.software) == (None, None)
    assert made.claims


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"hardware": "<script>", "software": 3, "environment": [], "data": None},
        {"hardware": {"machine": 3}, "software": {"python": ["x"]}, "environment": {"A": 1}},
        {"environment": {"OMP_NUM_THREADS": "2\0"}, "hardware": None},
    ],
)
def test_an_image_that_lies_about_itself_leaves_the_facts_unknown(recorded, facts):
    """Its Python is a stranger's."""
    made = recorded(None, engine=Engine(gives(), facts=facts))
    assert made.hardware is None
    assert made.determinism.environment == {}


def test_tensors_are_looked_at_inside(recorded):
    """The outputs are mounted read-only, and only files of tensors are asked for."""

    def program(request):
        (request.output / "model.pt").write_bytes(os.urandom(8))
        (request.output / "log.txt").write_text("x")
        return 0

    made = recorded(program, repeat=True)
    assert all(run.tensors == {"model.pt": Digest.of(b"tensors")} for run in made.runs)
    assert made.determinism.repeat.identical


@pytest.mark.parametrize(
    "labels",
    [
        {SEED: "--seed"},
        {SEED: "{seed}\n{seed}"},
        {DATA: "[]"},
        {DATA: '{"/data/x": "md5:0"}'},
        {METRICS: "{"},
    ],
)
def test_labels_that_declare_nothing_clear_are_refused(labels):
    """The image may be a stranger's."""
    with pytest.raises(ManifestError, match="label"):
        declared(image(**labels))


def test_a_program_that_cannot_start_leaves_no_directory(recorded, tmp_path):
    """Nothing was run, so there is nothing to look at."""

    def missing(request):
        raise EngineError("there is no such program")

    with pytest.raises(EngineError, match="no such program"):
        recorded(missing)
    assert not (tmp_path / "record").exists()


@pytest.mark.parametrize(
    ("metrics", "written", "words"),
    [
        ("{}", None, r"no metrics: .*seed-1/output/metrics.json is not there"),
        ('{"acc": {"name": "acc", "file": "x.json"}}', None, "no acc: it left no .*output/x.json"),
        ('{"acc": {"name": "acc"}}', '{"acd": 1}', "no acc: it holds no number of that name"),
        ('{"acc": {"name": "acc"}}', "{", "metrics.json is not JSON"),
        (
            '{"acc": {"name": "acc", "pattern": "Acc: (.*)"}}',
            None,
            r"no acc: nothing in .*seed-1/stdout.log matches its pattern Acc: \(\.\*\)$",
        ),
    ],
)
def test_the_first_run_tells_that_there_are_no_metrics(recorded, metrics, written, words):
    """The others are not waited for."""

    def program(request):
        if written is not None:
            (request.output / "metrics.json").write_text(written)
        return 0

    engine = Engine(program)
    with pytest.raises(MetricsError, match=words):
        recorded(None, engine=engine, found=image(**{METRICS: metrics}), first=measured)
    assert len(engine.requests) == 1


def test_the_first_run_tells_that_no_record_can_hold_what_it_wrote(recorded, monkeypatch):
    """Hours are not spent on runs of which nothing could be read."""

    def program(request):
        for place in range(11):
            (request.output / f"sample-{place}").touch()
        return gives()(request)

    monkeypatch.setattr(typed, "MOST", 10)
    engine = Engine(program)
    with pytest.raises(RecordError, match=r"runs\[0\]\.outputs has 12 entries, more than 10"):
        recorded(None, engine=engine)
    assert len(engine.requests) == 1


def test_tensors_are_counted_before_they_are_looked_at(recorded, monkeypatch):
    """What is asked of the container after the last run has its room after the first."""

    def program(request):
        for place in range(20):
            (request.output / f"model-{place}.pt").touch()
        return gives()(request)

    for module in (capacity, statement):
        monkeypatch.setattr(module, "LARGEST", 10_000)
    engine = Engine(program)
    with pytest.raises(RecordError, match="3 runs like the first would have 1"):
        recorded(None, engine=engine)
    assert len(engine.requests) == 1


def test_many_runs_share_the_room_of_a_record(recorded):
    """Each keeps fewer steps of its curve than one alone would."""

    def program(request):
        lines = (json.dumps({"step": place}) + "\n" for place in range(1000))
        (request.output / "metrics.jsonl").write_text("".join(lines))
        return gives()(request)

    made = recorded(program, seeds=range(1, 41))
    assert {len(each.curve.steps) for each in made.runs} == {501}
