"""Which record is published, and which one a reproduction is judged by."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.runs.records import IMAGE, NOW, accuracies

from torchship.digest import Digest
from torchship.errors import RecordError, UsageError
from torchship.oci import artifact
from torchship.oci.mediatypes import OCI_MANIFEST
from torchship.oci.store import Store
from torchship.progress import SILENT
from torchship.runs import publishing, reproduction
from torchship.runs.statement import encode, parse

OTHER = replace(IMAGE, name="zeroconf", manifest=Digest.of(b"another"))
HUB = "docker.io/me/mnist:v0.1"


def left(runs, name, *values, hours=0, **changes):
    """Leave a record in a directory of its own; return that."""
    made = accuracies(*values, recorded=NOW + timedelta(hours=hours), **changes)
    (runs / name / "seed-1").mkdir(parents=True)
    (runs / name / publishing.FILE).write_bytes(encode(made))
    return runs / name


def test_the_newest_record_of_the_same_name(tmp_path):
    """Not of a single run, and never what `reproduce` wrote."""
    left(tmp_path, "a", 0.9, 0.8)
    newest = left(tmp_path, "b", 0.9, 0.8, hours=1)
    (left(tmp_path, "c", 0.9, hours=2) / "output").mkdir()
    (left(tmp_path, "d", 0.9, 0.8, hours=3) / publishing.AUTHOR).write_text("{}")
    (tmp_path / "e").mkdir()
    assert publishing.newest(tmp_path, HUB, None) == newest
    assert publishing.newest(tmp_path, HUB, IMAGE.manifest) == newest


def test_another_projects_record_is_not_published(tmp_path):
    """The error names both, and how to say it explicitly."""
    folder = left(tmp_path, "a", 0.9, 0.8, image=OTHER)
    with pytest.raises(
        UsageError, match=r"is about zeroconf, .* docker.io/me/mnist:v0.1"
    ) as caught:
        publishing.newest(tmp_path, HUB, None)
    assert f"torchship publish {HUB} {folder}" in caught.value.hint
    with pytest.raises(UsageError, match=r"no record in .* is about docker.io/me/mnist:v0.1"):
        publishing.newest(tmp_path, HUB, IMAGE.manifest)


def test_an_image_of_the_store_takes_the_record_about_it(tmp_path):
    """Whatever was recorded since."""
    mine = left(tmp_path, "a", 0.9, 0.8)
    left(tmp_path, "b", 0.9, 0.8, image=OTHER, hours=1)
    assert publishing.newest(tmp_path, "x/y:z", IMAGE.manifest) == mine


@pytest.mark.parametrize(("raw", "words"), [(None, "holds no record"), ("{", "is not JSON")])
def test_a_newest_recording_without_a_record_is_told(tmp_path, raw, words):
    """It is not passed over for an older one."""
    left(tmp_path, "a", 0.9, 0.8)
    (tmp_path / "b" / "seed-1").mkdir(parents=True)
    if raw is not None:
        (tmp_path / "b" / publishing.FILE).write_text(raw)
    later = (NOW + timedelta(hours=1)).timestamp()
    for path in (tmp_path / "b", *(tmp_path / "b").iterdir()):
        os.utime(path, (later, later))
    for image in (None, IMAGE.manifest):
        with pytest.raises(RecordError, match=words) as caught:
            publishing.newest(tmp_path, HUB, image)
        assert str(tmp_path / "b") in caught.value.message
        assert caught.value.exit_code == 1


def test_a_directory_of_records_is_none(tmp_path):
    """One of the directories in it is meant."""
    left(tmp_path, "a", 0.9)
    with pytest.raises(RecordError) as caught:
        publishing.read(tmp_path)
    assert caught.value.hint == f"name one of the directories in {tmp_path}/"


def test_a_reproduction_is_known_by_its_record_too(tmp_path):
    """Naming the file in it does not make it the author's."""
    folder = left(tmp_path, "a", 0.9)
    assert reproduction.folder(folder) is None
    (folder / publishing.AUTHOR).write_text("{}")
    assert reproduction.folder(folder) == reproduction.folder(folder / publishing.FILE) == folder


def test_a_single_run_takes_the_place_of_no_record(tmp_path):
    """The newest of several runs is judged by; all are listed."""
    store = Store.open(tmp_path)
    image = store.put(b"{}", OCI_MANIFEST)
    for hours, values in enumerate([(0.9, 0.8), (0.9, 0.7), (0.95,)]):
        raw = encode(accuracies(*values, recorded=NOW + timedelta(hours=hours)))
        found = publishing.Published(record=parse(raw, "it"), raw=raw)
        publishing.attach(store, image, found)
    said = []

    class Told:
        """Progress that remembers."""

        task = staticmethod(SILENT.task)
        say = staticmethod(said.append)

    taken = publishing.chosen(store, image, Told())
    assert [run.metrics["test_accuracy"] for run in taken.record.runs] == [0.9, 0.7]
    assert said[0] == "3 records are attached to the image:"
    assert [line.endswith("taken") for line in said[1:]] == [False, True, False]
    assert "1 run, made at 2026-11-23 04:00:00 UTC" in said[1]
    assert artifact.referrers(store, image.digest, publishing.ARTIFACT_TYPE)
