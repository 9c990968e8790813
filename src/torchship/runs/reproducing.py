"""Running a published image again as its author's record says: what is asked for, and no more.

Image and record are a stranger's. Of the record only the command, the seeds and, for the strict
profile, the variables of that profile reach the container; nothing of it reaches the host.
"""

from __future__ import annotations

from torchship.digest import Digest
from torchship.engines.gpu import Gpus
from torchship.engines.request import Engine, Request
from torchship.errors import UsageError
from torchship.oci.image import Image
from torchship.progress import Progress
from torchship.runs import profile
from torchship.runs.execution import declared
from torchship.runs.publishing import AUTHOR, Published
from torchship.runs.record import Record
from torchship.runs.recording import Plan, record
from torchship.runs.run import RecordDirectory
from torchship.runs.statement import encode


def request(
    author: Record,
    image: Image,
    *,
    network: bool,
    processors: float | None,
    memory: int | None,
    gpus: Gpus,
) -> Request:
    """Return what to ask an engine for, once for each seed; the output directory is the run's.

    ``network`` says whether the reproducer allows it. It is given only where the author's runs
    had it, too, and `UsageError` is raised where they had it and it is not allowed.
    """
    if author.network and not network:
        raise UsageError(
            "the author's runs had the network, and this program is a stranger's",
            hint="add --network if you trust it with yours",
        )
    strict = author.determinism.profile == "strict"
    return Request(
        image=image,
        command=author.command,
        environment={
            name: value
            for name, value in author.determinism.environment.items()
            if strict and name in profile.NAMES
        },
        network=author.network,
        processors=processors,
        memory=memory,
        gpus=gpus,
        stdout=2,  # stdout carries the verdict
    )


def reproduce(
    published: Published,
    asked: Request,
    engine: Engine,
    *,
    runs: int,
    name: str,
    index: Digest,
    directory: RecordDirectory,
    progress: Progress,
) -> Record:
    """Run the image ``runs`` times, and leave the author's record beside the one of these runs."""
    author = published.record
    (directory.path / AUTHOR).write_bytes(published.raw)
    plan = Plan(
        request=asked,
        seeds=seeds(author, runs),
        profile=author.determinism.profile,
        name=name,
        index=index,
    )
    stated = declared(asked.image)
    made = record(plan, engine, declared=stated, directory=directory, progress=progress)
    directory.record.write_bytes(encode(made))
    return made


def seeds(author: Record, runs: int) -> tuple[int | None, ...]:
    """Return the author's seeds, and further ones where more runs are asked for than they made."""
    known = [run.seed for run in author.runs if run.status == 0 and run.seed is not None]
    if not known:
        return (None,) * runs
    following = max(known) + 1
    return (*known, *range(following, following + runs))[:runs]
