"""The record of a run."""

import dataclasses
import json
import os
from datetime import UTC, datetime

from torchship.digest import Descriptor, Digest
from torchship.runs import record

IMAGE = Descriptor(media_type="application/json", digest=Digest.of(b"image"), size=1)
RUN = record.Run(
    started=datetime(2026, 11, 22, tzinfo=UTC),
    seconds=61.2344,
    status=0,
    engine="native",
    command=("python", "main.py"),
    metrics={"test_accuracy": 0.1},
    outputs={"model.pt": Digest.of(b"weights")},
)


def test_a_record_is_an_in_toto_statement_about_the_image():
    """Subject and predicate type are those of the specification."""
    statement = json.loads(
        record.statement(name="mnist", image=IMAGE, platform="linux/amd64", run=RUN)
    )
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": "mnist", "digest": {"sha256": IMAGE.digest.hex}}]
    assert statement["predicateType"] == "urn:torchship:run-record:v1"


def test_a_metric_keeps_every_bit():
    """The hexadecimal form reads back as the same float."""
    statement = json.loads(
        record.statement(name="mnist", image=IMAGE, platform="linux/amd64", run=RUN)
    )
    metric = statement["predicate"]["runs"][0]["metrics"]["test_accuracy"]
    assert float.fromhex(metric["hex"]) == 0.1


def test_outputs_are_hashed_without_following_links(tmp_path):
    """A link out of the output directory is not an output; neither is a pipe."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe")
    assert record.outputs(tmp_path) == {"sub/file": Digest.of(b"x")}


def test_a_name_that_is_not_utf8_stands_in_the_record_all_the_same(tmp_path):
    """JSON has no words for its bytes: they are spelled out."""
    (tmp_path / os.fsdecode(b"caf\xe9")).write_bytes(b"x")
    run = dataclasses.replace(RUN, outputs=record.outputs(tmp_path), command=("\udcff",))
    statement = json.loads(
        record.statement(name="mnist", image=IMAGE, platform="linux/amd64", run=run)
    )
    predicate = statement["predicate"]
    assert predicate["command"] == ["\\udcff"]
    assert list(predicate["runs"][0]["outputs"]) == ["caf\\udce9"]
