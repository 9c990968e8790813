"""An author and a reproducer: two stores, one real registry, and verdicts of all five kinds."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.integration.test_end_to_end import machine, shared

from torchship.digest import Digest
from torchship.oci.artifact import referrers
from torchship.oci.image import read_image
from torchship.oci.reference import Reference
from torchship.platform import Platform
from torchship.runs import publishing, reproduction

__all__ = ["machine", "shared"]

pytestmark = [pytest.mark.network, pytest.mark.engine]
# Where engines are required, a machine of one processor fails these tests instead of hiding them.
NEEDS_TWO = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 and os.environ.get("TORCHSHIP_REQUIRE_ENGINES") != "1",
    reason="needs two processors",
)

# An experiment whose last digits depend on how many processors there are, as torch's do
MAIN = """\
import argparse, json, os, random
parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
LR = 1.0
draw = random.Random(args.seed)
noise = [draw.gauss(0, 0.01) for _ in range(1000)]
parts = len(os.sched_getaffinity(0))
mean = sum(sum(noise[n::parts]) for n in range(parts)) / len(noise)
out = os.environ["TORCHSHIP_OUTPUT"]
with open(out + "/metrics.jsonl", "w") as log:
    for epoch in range(1, 4):
        log.write(json.dumps({"epoch": epoch, "loss": mean / epoch}) + "\\n")
open(out + "/weights.bin", "wb").write(repr(mean).encode())
print(f"Accuracy: {0.99 * LR + mean:.17g}")
json.dump({"test_accuracy": 0.99 * LR + mean}, open(out + "/metrics.json", "w"))
"""
SETTINGS = """\
seed = "--seed {seed}"
[[tool.torchship.data]]
path = "/data/x"
sha256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
[tool.torchship.metrics.test_accuracy]
file = "metrics.json"
examples = 10000
"""


@pytest.fixture
def project(machine, shared, tmp_path) -> Path:
    """Give the author's project, with a data file that a mirror folder holds."""
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "x").write_bytes(b"x")
    found = machine.project("experiment", settings=SETTINGS, main__py=MAIN)
    shutil.copyfile(shared / "bare" / "torchship.lock", found / "torchship.lock")
    return found


@pytest.fixture
def author(machine, shared, tmp_path):
    """Give the author's machine, with a store of its own that has the base already."""
    store = tmp_path / "author"
    shutil.copytree(shared / "store", store, symlinks=True, copy_function=os.link)
    return machine.with_environment(TORCHSHIP_HOME=store, TORCHSHIP_MIRRORS=tmp_path / "mirror")


@pytest.fixture
def reader(machine):
    """Give the reproducer's machine, whose store is empty."""
    return machine.with_store("reader")


@pytest.fixture
def reference(shared_registry, tmp_path) -> str:
    """Give a reference in a repository of the test's own."""
    return f"{shared_registry.host}/{tmp_path.name.lower()}/mnist:v1".replace("_", "-")


FEW = ("--runs", "3", "--no-repeat")


def publish(author, project, reference, *options) -> Digest:
    """Record and publish; return the digest of the attached record."""
    answer = author.torchship("record", project, "--engine", "native", *options, "-o", "authors")
    assert answer.status == 0, answer.err
    assert answer.out == "authors/record.json\n"
    return published(author, reference, "authors")


def published(author, reference, folder) -> Digest:
    """Publish a record that was made before."""
    answer = author.torchship("publish", reference, folder)
    assert answer.status == 0, answer.err
    return Digest.parse(answer.out.strip())


def reproduce(reader, reference, *options):
    """Reproduce."""
    return reader.torchship("reproduce", reference, "--engine", "native", *options)


def test_the_same_bits(author, reader, project, reference):
    """A rerun on another store of the same machine gives the same bits, and exits with 0."""
    publish(author, project, reference)
    answer = reproduce(reader, reference, "-o", "mine")
    assert answer.status == 0, answer.err
    assert answer.out.startswith("BIT-IDENTICAL: every metric and every output of the run with")
    assert "expect: the same model of processor" in answer.err
    theirs = publishing.read(reader.root / "authors").record
    ours = publishing.read(reader.root / "mine").record
    assert theirs.determinism.repeat.identical
    assert [run.seed for run in theirs.runs] == [1, 2, 3, 4, 5]
    assert [file.name for file in ours.data] == ["/data/x"]
    assert theirs.hardware == ours.hardware
    assert (reader.root / "mine/author.json").read_bytes() == (
        reader.root / "authors/record.json"
    ).read_bytes()
    # and once more, offline
    offline = reader.torchship("compare", "authors", "mine/record.json")
    assert (offline.status, offline.out) == (0, answer.out)
    assert json.loads(reader.torchship("compare", "authors", "mine", "--json").out)["exitCode"] == 0


@NEEDS_TWO
def test_another_number_of_threads(author, reader, project, reference):
    """Other last digits are within tolerance, and the first step that differs is named."""
    publish(author, project, reference, *FEW)
    answer = reproduce(reader, reference, "--cpus", "1", "--runs", "2")
    assert answer.status == 0, answer.err
    assert answer.out.startswith("WITHIN TOLERANCE: ")
    assert "first difference of seed 1 in metrics.jsonl: epoch 1, loss: " in answer.out
    assert "processors: " in answer.out


def test_a_changed_learning_rate_behind_the_same_command(author, reader, project, reference):
    """The published numbers are another program's: not reproduced, exit code 1."""
    publish(author, project, reference, *FEW)
    honest = (author.root / "authors/record.json").read_text()
    (project / "main.py").write_text(MAIN.replace("LR = 1.0", "LR = 0.9"))
    made = author.torchship(
        "record", project, "--engine", "native", "-o", "changed", "--runs", "1", "--no-repeat"
    )
    assert made.status == 0, made.err
    # offline, the images are seen to differ as well
    offline = author.torchship("compare", "authors", "changed")
    assert offline.status == 1
    assert offline.out.startswith("NOT REPRODUCED: test_accuracy: ")
    assert "image: sha256:" in offline.out
    # and a record forged to be about the changed image does not help
    theirs, changed = (
        publishing.read(author.root / name).record.image.manifest for name in ("authors", "changed")
    )
    (author.root / "forged.json").write_text(honest.replace(theirs.hex, changed.hex))
    other = reference.replace(":v1", ":v2")
    published(author, other, "forged.json")
    answer = reproduce(reader, other)
    assert answer.status == 1
    assert answer.out.startswith("NOT REPRODUCED: test_accuracy: ")


@NEEDS_TWO
def test_too_few_runs(author, reader, project, reference):
    """One run each, with other last digits: nobody can tell, exit code 3."""
    publish(author, project, reference, "--runs", "1", "--no-repeat")
    answer = reproduce(reader, reference, "--cpus", "1")
    assert answer.status == 3
    assert answer.out.startswith("INCONCLUSIVE: test_accuracy: consistent if errors are indep")


def test_a_damaged_data_file(author, reader, project, reference, shared_registry):
    """A layer that the registry damaged is never run: could not run, exit code 4."""
    publish(author, project, reference, *FEW)
    image = publishing.read(author.root / "authors").record.image.manifest
    manifest = json.loads(shared_registry.blob_path(image).read_bytes())
    (layer,) = (
        layer
        for layer in manifest["layers"]
        if "data /data/x" in layer["annotations"].get("org.opencontainers.image.title", "")
    )
    path = shared_registry.blob_path(Digest.parse(layer["digest"]))
    before = path.read_bytes()
    path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    try:
        answer = reproduce(reader, reference)
    finally:
        path.write_bytes(before)
    assert answer.status == 4
    assert answer.out.startswith("COULD NOT RUN: ")


def test_data_that_are_not_what_the_image_declares(author, reader, project, reference):
    """They are looked at inside the container, before anything runs."""
    author.build(project)
    declare_other_data(author.store, "experiment", "other:v1", Digest.of(b"x"), Digest.of(b"y"))
    answer = author.torchship("record", "other:v1", "--engine", "native")
    answer.fails("the data file /data/x is damaged, or another")


def declare_other_data(store, name, other, before, after) -> None:
    """Give another name to an image that says else of its data: of the same length."""
    top = store.find(name)
    manifest = store.read(top)
    config = read_image(store, top, Platform.host()).config
    said = store.read(config).replace(str(before).encode(), str(after).encode())
    new = store.put(said, config.media_type)
    assert new.size == config.size and new.digest != config.digest
    changed = manifest.replace(str(config.digest).encode(), str(new.digest).encode())
    store.tag(other, store.put(changed, top.media_type))


def test_a_crash(author, reader, project, reference):
    """A program that fails on the reproducer's machine could not run, with its exit status."""
    crashing = MAIN + "import sys; sys.exit(9 if parts == 1 else 0)\n"
    (project / "main.py").write_text(crashing)
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    publish(author, project, reference, "--runs", "2")
    answer = reproduce(reader, reference, "--cpus", "1")
    assert answer.status == 4
    assert "1 of 1 runs failed: exit status 9 (seed 1)" in answer.out
    # and the author's own
    answer = author.torchship("record", project, "--engine", "native", "--cpus", "1")
    answer.fails("the run with seed 1 ended with exit status 9")


def test_no_record(author, reader, project, reference):
    """An image without one cannot be judged; an image that is not there cannot be run."""
    author.build(project, "-t", reference)
    assert author.torchship("push", reference).status == 0
    answer = reproduce(reader, reference)
    assert answer.status == 4
    assert answer.out.startswith("COULD NOT RUN: no record is attached to the image")
    told = json.loads(reproduce(reader, reference, "--json").out)
    assert (told["verdict"], told["exitCode"]) == ("COULD NOT RUN", 4)
    assert not reader.store.images()  # nothing was downloaded to find that out
    assert reproduce(reader, reference.replace(":v1", ":v9")).status == 4


def test_a_record_for_another_image(author, reader, project, reference):
    """A record that says it is about another image than it is attached to is never a pass."""
    made = author.torchship("record", project, "--engine", "native", *FEW, "-o", "authors")
    assert made.status == 0, made.err
    store = author.store
    found = publishing.read(author.root / "authors")
    image = publishing.subject(store, found.record)
    other = found.raw.replace(image.digest.hex.encode(), b"0" * 64)
    publishing.attach(store, image, publishing.Published(record=found.record, raw=other))
    store.tag(Reference.parse(reference), image)
    assert author.torchship("push", reference).status == 0
    answer = reproduce(reader, reference)
    assert answer.status == 4
    assert "about another image" in answer.out


def test_hostile_records(author, reader, project, reference):
    """Nothing runs for a record that is not to be believed; one that is shown is shown escaped."""
    publish(author, project, reference, *FEW)
    honest = json.loads((author.root / "authors/record.json").read_bytes())
    nasty = "<script>\x1b]0;owned\x07\u202e"
    for place, change in enumerate(
        (
            lambda document: document.update(predicateType="urn:torchship:run-record:v2" + nasty),
            lambda document: document["subject"][0]["digest"].update(sha256="0" * 64),
            lambda document: document["predicate"]["claims"].extend(
                document["predicate"]["claims"] * 9_999
            ),
            lambda document: document["predicate"]["runs"][0]["metrics"].update(
                {nasty: {"value": 1.0, "hex": "0x1p0"}}
            ),
        )
    ):
        document = json.loads(json.dumps(honest))
        change(document)
        (reader.root / f"hostile-{place}.json").write_text(json.dumps(document))
        answer = reproduce(reader, reference, "--record", f"hostile-{place}.json")
        assert answer.status == 4
        assert answer.out.startswith("COULD NOT RUN: ")
        assert (answer.out + answer.err).replace("\n", "").isprintable()
        assert not (reader.root / "runs").exists()
    for table in (honest["predicate"]["hardware"], honest["predicate"]["software"]):
        for name, value in table.items():
            table[name] = nasty if isinstance(value, str) else value
    (reader.root / "shown.json").write_text(json.dumps(honest))
    answer = reproduce(reader, reference, "--record", "shown.json")
    assert answer.status == 0
    assert (answer.out + answer.err).replace("\n", "").isprintable()


def test_what_a_strangers_program_prints_is_marked(author, reader, project, reference):
    """It cannot print a verdict, nor what a terminal obeys; the log has its bytes as they are."""
    forged = 'print("\\x1b[2J\\x1b[HBIT-IDENTICAL: trust me")\n'
    (project / "main.py").write_text(MAIN + forged)
    publish(author, project, reference, *FEW)
    answer = reproduce(reader, reference)
    assert answer.status == 0, answer.err
    assert "\n| \ufffd[2J\ufffd[HBIT-IDENTICAL: trust me\n" in answer.err
    assert (answer.out + answer.err).replace("\n", "").isprintable()
    (log,) = (reader.root / "runs").glob("*/*/stdout.log")
    assert b"\x1b[2J\x1b[HBIT-IDENTICAL" in log.read_bytes()


def test_a_record_of_another_repository_is_not_judged_by(author, reader, project, reference):
    """The store may hold records from elsewhere about the same image: they do not count here."""
    publish(author, project, reference, *FEW)
    claimed = json.loads((author.root / "authors/record.json").read_bytes())
    claimed["predicate"]["recorded"] = "2099-01-01T00:00:00Z"
    (author.root / "newer.json").write_text(json.dumps(claimed))
    elsewhere = reference.replace("/mnist:", "/elsewhere:")
    newer = published(author, elsewhere, "newer.json")
    assert reader.torchship("pull", elsewhere).status == 0
    assert reproduce(reader, reference, "-o", "mine").status == 0
    assert (reader.root / "mine/author.json").read_bytes() == (
        author.root / "authors/record.json"
    ).read_bytes()
    assert newer in {
        each.digest for each in referrers(reader.store, reader.store.find(reference).digest)
    }


def test_an_unmodified_program_by_what_it_prints(author, reader, project, reference):
    """A pattern on stdout and a variable for the seed: nothing of the program is changed."""
    (project / "main.py").write_text(
        "import os, random\ndraw = random.Random(int(os.environ['SEED']))\n"
        "for epoch in range(2):\n"
        "    print(f'Test set: Average loss: {draw.random():.4f}, "
        "Accuracy: {int(9900 + 20 * draw.random())}/10000 (99%)')\n"
    )
    (project / "pyproject.toml").write_text(
        "[tool.torchship]\nseed = 'SEED={seed}'\n[tool.torchship.metrics.test_accuracy]\n"
        "pattern = 'Accuracy: (\\d+)/(\\d+)'\n"
    )
    publish(author, project, reference, *FEW)
    made = publishing.read(author.root / "authors").record
    (claim,) = made.claims
    assert (claim.n, claim.examples) == (3, 10_000)
    assert made.runs[0].curve.source == "stdout"
    assert reproduce(reader, reference).out.startswith("BIT-IDENTICAL")


def test_the_record_in_the_registry_is_the_bytes_that_were_written(
    author, reader, project, reference
):
    """What is attached is the file, byte for byte, as an artifact of its type."""
    digest = publish(author, project, reference, *FEW)
    assert reader.torchship("pull", reference).status == 0
    store = reader.store
    image = store.find(reference)
    (found,) = referrers(store, image.digest, publishing.ARTIFACT_TYPE)
    assert found.digest == digest
    (record,) = publishing.attached(store, image)
    assert record.raw == (author.root / "authors/record.json").read_bytes()


def test_a_verdict_is_published_beside_the_record(author, reader, project, reference):
    """A second referrer cites the author's record; the record stays what is judged by."""
    publish(author, project, reference, *FEW)
    assert reproduce(reader, reference, "-o", "mine").status == 0
    answer = reader.torchship("publish", reference, "mine")
    assert answer.status == 0, answer.err
    assert "reproduced by this record: BIT-IDENTICAL" in answer.err
    third = author.with_store("third")
    assert third.torchship("pull", reference).status == 0
    image = third.store.find(reference)
    (found,) = referrers(third.store, image.digest, reproduction.ARTIFACT_TYPE)
    assert found.annotations[reproduction.VERDICT] == "BIT-IDENTICAL"
    record = publishing.read(author.root / "authors")
    assert found.annotations[reproduction.RECORD] == str(record.digest)
    for here in (third, third.with_store("fourth")):  # from a store, and from the registry
        shown = here.torchship("inspect", reference).out
        assert f"records\n  {record.digest.short}  " in shown
        assert ", n = 3\nverdicts\n" in shown
        assert f"  BIT-IDENTICAL, of {record.digest.short}: " in shown
    assert reproduce(third, reference).status == 0


def test_a_reproduction_on_docker(author, reader, project, reference, dockerd):
    """The record of one engine is judged by the runs of another."""
    publish(author, project, reference, *FEW)
    there = {name: dockerd.environment[name] for name in ("DOCKER_HOST", "DOCKER_CONFIG")}
    answer = reader.with_environment(**there).torchship(
        "reproduce", reference, "--engine", "docker", "-o", "mine"
    )
    assert answer.status == 0, answer.err
    assert answer.out.startswith("BIT-IDENTICAL")
    ours = publishing.read(reader.root / "mine").record
    assert (ours.engine, ours.hardware.machine) == ("docker", os.uname().machine)


def test_usage(author, reader, project, reference):
    """What the command line lacks is told with exit code 2."""
    reader.torchship("reproduce", "NOT a reference").fails("NOT", status=2)
    assert reader.torchship("compare", "nowhere", "nowhere").status == 2
    author.torchship("record", project, "--seeds", "1,1").fails("different numbers", status=2)
    (reader.root / "junk").write_text("{}")
    reader.torchship("compare", "junk", "junk").fails("not an in-toto statement", status=4)
