"""Jobs for the tests of manifests: one of each shape that makes a difference."""

from pathlib import Path

from torchship.digest import Descriptor, Digest
from torchship.engines.request import Request
from torchship.launch.job import Job, Shape, job
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
    workdir="/workspace",
    user="1000:1000",
)
FULL = Shape(
    nodes=3,
    processes=4,
    gpus=4,
    cpus=16,
    memory=64 << 30,
    shared_memory=8 << 30,
    time_limit=7200,
    max_restarts=2,
    port=29501,
)


def run(shape: Shape, *, command: tuple[str, ...] = (), **environment: str) -> Job:
    """Return the job of a run."""
    request = Request(image=IMAGE, command=command, output=Path("o"), environment=environment)
    return job(request, reference=REFERENCE, shape=shape)


def question(shape: Shape) -> Job:
    """Return the job of a question, which keeps nothing."""
    request = Request(image=IMAGE, command=("python3", "-c", "pass"))
    return job(request, reference=REFERENCE, shape=shape)


EVERY = {
    "bare": run(Shape()),
    "full": run(FULL, PLAIN="a", DOLLARS="$(HOME) $$ $x"),
    "one node of several processes": run(Shape(processes=2)),
    "question": question(FULL),
}
