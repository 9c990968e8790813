"""What a cluster is asked to run."""

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from torchship.digest import Descriptor, Digest
from torchship.engines.request import Mount, Request
from torchship.errors import EngineError, UsageError
from torchship.launch.job import Shape, job, name
from torchship.oci import mediatypes
from torchship.oci.image import Image
from torchship.oci.reference import Reference
from torchship.platform import Platform

DIGEST = Digest.of(b"")
REFERENCE = Reference.parse(f"registry.example/me/mnist-fast@{DIGEST}")
IMAGE = Image(
    platform=Platform("linux", "amd64"),
    descriptor=Descriptor(media_type=mediatypes.OCI_MANIFEST, digest=DIGEST, size=0),
    config=Descriptor(media_type=mediatypes.OCI_CONFIG, digest=DIGEST, size=0),
    layers=(),
    command=("python", "main.py"),
)
SHAPE = Shape(nodes=2, processes=2, gpus=2, memory=1 << 30, max_restarts=3)


def test_a_run_is_started_by_torchrun_on_all_nodes():
    """A request with an output directory is a job of the whole shape."""
    made = job(
        Request(image=IMAGE, output=Path("out"), environment={"A": "b"}),
        reference=REFERENCE,
        shape=SHAPE,
    )
    assert made.command[0] == "torchrun"
    assert made.command[-1] == "main.py"
    assert made.shape == SHAPE
    assert made.output == "/output"
    assert made.environment == {"A": "b", "TORCHSHIP_OUTPUT": "/output"}


def test_a_question_is_asked_once():
    """A request without an output directory is one process of one node, without torchrun."""
    asked = Request(image=IMAGE, command=("python3", "-c", "pass"))
    made = job(asked, reference=REFERENCE, shape=SHAPE)
    assert made.command == ("python3", "-c", "pass")
    assert made.shape == Shape(gpus=2, memory=1 << 30)
    assert made.output is None


@pytest.mark.parametrize("word", ["\udcff", "a\0b"])
def test_what_no_script_can_hold_is_refused(word):
    """Before anything is submitted."""
    with pytest.raises(UsageError):
        job(Request(image=IMAGE, command=("python", word)), reference=REFERENCE, shape=Shape())
    given = Request(image=IMAGE, environment={"NAME": word})
    with pytest.raises(UsageError, match="'NAME' cannot be set"):
        job(given, reference=REFERENCE, shape=Shape())


def test_one_process_needs_no_torchrun():
    """A job of one process on one node runs the program as it is, after its entrypoint."""
    request = Request(image=replace(IMAGE, entrypoint=("tini", "--")), output=Path("out"))
    made = job(request, reference=REFERENCE, shape=Shape())
    assert made.command == ("tini", "--", "python", "main.py")


def test_one_process_that_may_be_started_again_needs_torchrun():
    """To start a program anew is what torchrun does, and nobody else."""
    request = Request(image=IMAGE, output=Path("out"))
    made = job(request, reference=REFERENCE, shape=Shape(max_restarts=1))
    assert made.command[0] == "torchrun"
    assert made.command[-3:] == ("python", "-u", "main.py")


@pytest.mark.parametrize(
    ("repository", "label"),
    [
        ("me/mnist-fast", "mnist-fast"),
        ("me/my_model.v2", "my-model-v2"),
        ("me/2d", "run-2d"),
        ("me/" + "a" * 90, "a" * 40),
        ("me/" + "a" * 39 + "-b", "a" * 39),
    ],
)
def test_a_name_is_a_label_of_dns(repository, label):
    """Whatever an image is called, a cluster takes its job's name."""
    found = name(Reference.parse(f"registry.example/{repository}:v1"))
    assert found == label
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", found)


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (Request(image=replace(IMAGE, command=())), "no command"),
        (Request(image=IMAGE, command=("python", "a\0b")), "NUL"),
        (Request(image=IMAGE, environment={"A B": "c"}), "'A B'"),
        (Request(image=IMAGE, environment={"A": "\0"}), "'A'"),
        (Request(image=IMAGE, tty=True), "terminal"),
    ],
)
def test_what_no_cluster_runs_is_refused(request_, fault):
    """No job is made of an empty command, or of what no process can be given."""
    with pytest.raises(UsageError, match=fault):
        job(request_, reference=REFERENCE, shape=SHAPE)


def test_what_is_asked_of_local_folders_stays_unknown():
    """Runs that are through are not lost because a cluster cannot look at their outputs."""
    asked = Request(image=IMAGE, mounts=(Mount(source=Path("/x"), target="/x"),))
    with pytest.raises(EngineError, match="no folder of this machine"):
        job(asked, reference=REFERENCE, shape=SHAPE)
