"""Runs as Process Run Crates."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import replace

import pytest
from tests.runs.records import record, run, whole

from torchship.digest import Digest
from torchship.errors import RecordError, RunError, UsageError
from torchship.export.crate import METADATA, Named, Stated, crate
from torchship.export.packing import save_folder, save_here, save_zip
from torchship.runs import statement

ODD = "sub dir/we ights é#?.bin"


@pytest.fixture
def folder(tmp_path):
    """Give a directory of two runs, as `record` leaves it."""
    runs = []
    for seed in (1, 2):
        output = tmp_path / "runs" / f"seed-{seed}" / "output"
        (output / "sub dir").mkdir(parents=True)
        (output / ODD).write_bytes(b"weights %d" % seed)
        (output.parent / "stdout.log").write_text("epoch 1\n")
        outputs = {ODD: Digest.of(b"weights %d" % seed)}
        runs.append(replace(run(seed, test_accuracy=0.9 + seed / 100), outputs=outputs))
    found = replace(whole(), runs=tuple(runs), claims=record(*runs).claims)
    (tmp_path / "runs/record.json").write_bytes(statement.encode(found))
    return tmp_path / "runs"


def graph(made):
    """Return a crate's entities by their identifiers, each of which is there once."""
    entities = json.loads(made.metadata)["@graph"]
    found = {entity["@id"]: entity for entity in entities}
    assert len(found) == len(entities)
    return found


def ids(value):
    """Return the identifiers that a property refers to."""
    return [each["@id"] for each in (value if isinstance(value, list) else [value])]


def test_each_run_is_an_action(folder):
    """With its program, its image, its times, its status and its command."""
    found = graph(crate(folder))
    action = found["#run-2"]
    assert action["@type"] == "CreateAction"
    assert action["description"] == "python main.py --seed 2"
    assert action["startTime"] == "2026-11-23T02:00:00.000+00:00"
    assert action["endTime"] == "2026-11-23T02:00:01.500+00:00"
    assert action["actionStatus"] == "http://schema.org/CompletedActionStatus"
    assert found[action["instrument"]["@id"]]["@type"] == "SoftwareApplication"
    image = found[action["containerImage"]["@id"]]
    assert (image["@type"], image["sha256"]) == ("ContainerImage", whole().image.manifest.hex)
    assert "agent" not in action
    assert ids(found["./"]["mentions"]) == ["#run-1", "#run-2"]


def test_what_went_in_and_what_came_out(folder):
    """Data, parameters, seed and environment; files with size and digest, and metrics."""
    found = graph(crate(folder))
    action = found["#run-1"]
    used = [found[each] for each in ids(action["object"])]
    assert [(each["name"], each.get("value")) for each in used] == [
        ("/data/x", None), ("epochs", "1"), ("seed", "1"),
    ]  # fmt: skip
    assert used[0]["sha256"] == Digest.of(b"x").hex
    (variable,) = [found[each] for each in ids(action["environment"])]
    assert (variable["name"], variable["value"]) == ("OMP_NUM_THREADS", "2")
    file, metric = (found[each] for each in ids(action["result"]))
    assert file["@type"] == "File" and file["contentSize"] == "9"
    assert file["sha256"] == hashlib.sha256(b"weights 1").hexdigest()
    assert (metric["name"], metric["value"]) == ("test_accuracy", 0.91)


def test_every_reference_leads_somewhere(folder):
    """All that is referred to is described, or is the specification's own."""
    found = graph(crate(folder))

    def references(value):
        if isinstance(value, dict):
            if set(value) == {"@id"}:
                yield value["@id"]
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    wanted = set(references(list(found.values())))
    known = {
        "https://w3id.org/ro/crate/1.1",
        "https://w3id.org/ro/terms/workflow-run#DockerImage",
    }
    assert wanted - set(found) == known


def test_it_says_what_it_conforms_to(folder):
    """RO-Crate 1.1, and the profile."""
    found = graph(crate(folder))
    assert found[METADATA]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert found["./"]["conformsTo"] == {"@id": "https://w3id.org/ro/wfrun/process/0.5"}
    assert found["https://w3id.org/ro/wfrun/process/0.5"]["version"] == "0.5"
    assert found["./"]["identifier"] == str(Digest.of_file(folder / "record.json"))


def test_nobody_and_no_licence_is_invented(folder):
    """They are named by whoever exports, or not at all."""
    assert "No licence" in graph(crate(folder))["./"]["license"]
    stated = Stated(
        agent=Named.person("Ada Lovelace <https://orcid.org/0000-0002-1825-0097>"),
        licence=Named.licence("CC-BY-4.0"),
    )
    found = graph(crate(folder, stated))
    who = found[found["#run-1"]["agent"]["@id"]]
    assert (who["@type"], who["name"]) == ("Person", "Ada Lovelace")
    assert found["./"]["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}


@pytest.mark.parametrize("text", ["Ada", "Ada <x>", "<https://x>", "A\x1b <https://x>", ""])
def test_a_person_has_a_name_and_an_address(text):
    """Anything else is a mistake."""
    with pytest.raises(UsageError):
        Named.person(text)


@pytest.mark.parametrize("text", ["", "all rights", "ftp://x", "https://x y"])
def test_a_licence_has_a_name_or_an_address(text):
    """Anything else is a mistake."""
    with pytest.raises(UsageError):
        Named.licence(text)


def test_a_single_runs_directory_is_one_too(tmp_path):
    """As `run` leaves it; a run that failed says so."""
    (tmp_path / "output").mkdir()
    found = record(replace(run(None, status=3), outputs={}, metrics={}), claims=(), seed=None)
    (tmp_path / "record.json").write_bytes(statement.encode(found))
    (tmp_path / "stdout.log").write_text("")
    action = graph(crate(tmp_path))["#run-1"]
    assert action["actionStatus"] == "http://schema.org/FailedActionStatus"
    assert action["error"] == "exit status 3"


def test_a_record_alone_describes_what_is_not_there(folder):
    """Outputs with their digests, which are no files of the crate."""
    found = graph(crate(folder / "record.json"))
    assert ids(found["./"]["hasPart"]) == ["record.json"]
    absent = found[ids(found["#run-1"]["result"])[0]]
    assert (absent["@type"], absent["name"]) == ("CreativeWork", ODD)
    assert absent["sha256"] == hashlib.sha256(b"weights 1").hexdigest()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("registry.example:5000/me/mnist:v1", ("registry.example:5000", "me/mnist", "v1")),
        ("docker.io/me/mnist:v1", ("docker.io", "me/mnist", "v1")),
        ("mnist", (None, "mnist", None)),
        ("Not a Reference!", (None, "Not a Reference!", None)),
    ],
)
def test_an_image_is_named_as_its_registry_knows_it(tmp_path, name, expected):
    """A name of somebody's store is no registry's."""
    image = replace(whole().image, name=name)
    path = tmp_path / "record.json"
    path.write_bytes(statement.encode(replace(whole(), image=image)))
    found = graph(crate(path))["#image"]
    assert (found.get("registry"), found["name"], found.get("tag")) == expected


def test_a_changed_output_is_no_result(folder):
    """Nor is one that is gone."""
    output = folder / "seed-1/output" / ODD
    output.write_bytes(b"other weights")
    with pytest.raises(RunError, match="has changed since"):
        crate(folder)
    output.unlink()
    with pytest.raises(RunError, match="does not hold"):
        crate(folder)


def test_links_and_paths_out_of_the_directory_are_not_followed(tmp_path):
    """Whatever a stranger's record or program says: nothing else of the machine is packed."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    folder = tmp_path / "run"
    (folder / "output").mkdir(parents=True)
    (folder / "output/link").symlink_to(secret)
    for name in ("link", "../../secret", str(secret), "/etc/passwd"):
        found = record(replace(run(1, test_accuracy=1.0), outputs={name: Digest.of(b"secret")}))
        (folder / "record.json").write_bytes(statement.encode(found))
        with pytest.raises(RunError, match="does not hold"):
            crate(folder)


def test_folders_that_are_links_are_not_followed(folder, tmp_path):
    """Neither a run's folder nor its output is looked for elsewhere."""
    for name in ("seed-1", "seed-2/output"):
        (folder / name).rename(tmp_path / "elsewhere")
        (folder / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(RunError, match="does not hold"):
            crate(folder)
        (folder / name).unlink()
        (tmp_path / "elsewhere").rename(folder / name)


def test_nothing_is_written_through_a_link(folder, tmp_path):
    """A link where the metadata belong is replaced; what it led to stays as it is."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (folder / METADATA).symlink_to(mine)
    save_here(crate(folder), folder)
    assert mine.read_text() == "mine"
    assert not (folder / METADATA).is_symlink()
    assert json.loads((folder / METADATA).read_bytes())["@graph"]
    assert not [path for path in folder.iterdir() if path.suffix == ".part"]


def test_a_strangers_words_stay_words(tmp_path):
    """Odd names of parameters and outputs are encoded in identifiers."""
    odd = '"}<script>/../#?é'
    found = replace(
        record(replace(run(1, test_accuracy=1.0), outputs={odd: Digest.of(b"")})),
        parameters={odd: odd},
        image=replace(whole().image, name=odd),
    )
    path = tmp_path / "record.json"
    path.write_bytes(statement.encode(found))
    entities = graph(crate(path))
    for identifier in entities:
        assert identifier.isascii() and not set(' "<>') & set(identifier)
    assert any(entity.get("value") == odd for entity in entities.values())


def test_what_is_no_run_is_refused(tmp_path):
    """An empty folder, and a file that is no record."""
    with pytest.raises(RecordError):
        crate(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(RecordError):
        crate(tmp_path / "x.json")


@pytest.mark.parametrize("way", ["here", "folder", "zip"])
def test_another_implementation_reads_it(folder, tmp_path, way):
    """In place, copied or packed: every file is where the metadata say."""
    rocrate = pytest.importorskip("rocrate.rocrate")
    made = crate(folder)
    if way == "here":
        path = save_here(made, folder).parent
    elif way == "folder":
        path = save_folder(made, tmp_path / "copy").parent
    else:
        path = save_zip(made, tmp_path / "crate.zip")
    read = rocrate.ROCrate(path)
    files = {entity.id: entity for entity in read.data_entities}
    assert len(files) == 5
    for file in made.files:
        entity = files[file.id]
        assert os.path.getsize(entity.source) == file.size  # noqa: PTH202 (a text, or a path)
        assert entity["sha256"] == file.digest.hex


def test_the_same_run_gives_the_same_zip(folder, tmp_path):
    """Whenever it is packed; and no half of one is left behind."""
    one, two = (save_zip(crate(folder), tmp_path / name) for name in ("1.zip", "2.zip"))
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        assert archive.testzip() is None
    made = crate(folder)
    (folder / "seed-2/output" / ODD).write_bytes(b"meanwhile")
    with pytest.raises(RunError, match="while it was copied"):
        save_zip(made, tmp_path / "3.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.zip", "2.zip", "runs"]


def test_a_folder_that_holds_something_is_not_written_into(folder, tmp_path):
    """What is there stays as it is."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there/x").write_text("x")
    with pytest.raises(UsageError, match="is there already"):
        save_folder(crate(folder), tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["x"]
