"""``torchship launch``: an image run on the machines of a cluster, and its record collected."""

from __future__ import annotations

import dataclasses
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct
from msgspec.structs import replace

from torchship.cli.common import check_command, example, open_store, parse_memory, platform
from torchship.cli.record import output, parse_seeds, planned, run_directory, show
from torchship.errors import MetricsError, UsageError

if TYPE_CHECKING:
    from torchship.launch.cluster import Cluster
    from torchship.launch.job import Shape
    from torchship.launch.published import Found
    from torchship.oci.store import Store
    from torchship.progress import Progress
    from torchship.runs.execution import Declared
    from torchship.runs.record import Record
    from torchship.runs.run import RecordDirectory

_LAST_PORT = 65535
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command(
    epilog=example(
        "torchship launch registry.example/me/mnist:v0.1 --on slurm --nodes 2",
        "torchship launch registry.example/me/mnist:v0.1 --on kubernetes --nodes 2 --gpus 8",
        "torchship launch registry.example/me/mnist:v0.1 --on slurm -- python main.py --epochs 1",
    )
)
@click.argument("reference")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--on", type=click.Choice(["slurm", "kubernetes"]), required=True, help="Which cluster."
)
@click.option(
    "--nodes", type=click.IntRange(1, 10_000), default=1, show_default=True, help="How many."
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Processes of each node; one for each of its GPUs unless given.",
)
@click.option(
    "--gpus", type=click.IntRange(0, 64), default=0, metavar="N", help="GPUs of each node."
)
@click.option("--cpus", type=click.IntRange(1, 4096), metavar="N", help="Cores of each node.")
@click.option("--memory", metavar="BYTES", help="Memory of each node, e.g. 64G.")
@click.option(
    "--shared-memory", metavar="BYTES", help="Memory that processes of a node share, e.g. 8G."
)
@click.option("--time", "time_limit", metavar="TIME", help="Most time: 30m, 12h, 2d, or 1:30:00.")
@click.option(
    "--max-restarts",
    type=click.IntRange(0, 1000),
    default=0,
    show_default=True,
    help="How often a program whose process dies is started anew.",
)
@click.option(
    "--port",
    type=click.IntRange(1, _LAST_PORT),
    default=29500,
    show_default=True,
    help="Where the nodes find each other.",
)
@click.option(
    "-e", "--env", "environment", multiple=True, metavar="K=V", help="Set a variable in the job."
)
@click.option(
    "--runs",
    "count",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="How many runs, one after another: with seeds 1, 2, 3, ...",
)
@click.option("--seeds", metavar="A,B,...", help="These seeds instead.")
@output
@click.option("--dry-run", is_flag=True, help="Print the job, and submit nothing.")
@click.option(
    "--with",
    "runtime",
    type=click.Choice(["oci", "docker", "podman", "apptainer"]),
    help="Slurm: what runs containers on the nodes; what is found here, unless given.",
)
@click.option("--partition", metavar="NAME", help="Slurm: where the job is queued.")
@click.option("--account", metavar="NAME", help="Slurm: who is charged.")
@click.option(
    "--kind",
    type=click.Choice(["job", "trainjob"]),
    help="Kubernetes: an Indexed Job, which every cluster has, or a TrainJob of Kubeflow.",
)
@click.option("--namespace", metavar="NAME", help="Kubernetes: else that of the context.")
@click.option("--context", "context_name", metavar="NAME", help="Kubernetes: one of kubectl's.")
@click.option(
    "--pull-secret", metavar="NAME", help="Kubernetes: the Secret with the registry's password."
)
@click.option(
    "--output-claim",
    metavar="NAME",
    help="Kubernetes: keep the outputs in this PersistentVolumeClaim as well.",
)
@platform
@click.option(
    "--variant",
    metavar="NAME",
    help="Of an image's builds of torch, take this one (cpu, cu130); else the newest CUDA with "
    "--gpus, and cpu without.",
)
def launch(
    reference: str,
    command: tuple[str, ...],
    on: str,
    nodes: int,
    processes: int | None,
    gpus: int,
    cpus: int | None,
    memory: str | None,
    shared_memory: str | None,
    time_limit: str | None,
    max_restarts: int,
    port: int,
    environment: tuple[str, ...],
    count: int,
    seeds: str | None,
    output: Path | None,
    dry_run: bool,
    runtime: str | None,
    partition: str | None,
    account: str | None,
    kind: str | None,
    namespace: str | None,
    context_name: str | None,
    pull_secret: str | None,
    output_claim: str | None,
    platform: str | None,
    variant: str | None,
) -> None:
    """Run a published image on the machines of a cluster, and collect its record.

    What the program prints is shown as it comes, and its outputs and the record end up in a
    directory here, as those of `torchship record` do: `torchship publish` takes it. With more
    than one process, or with --max-restarts, torchrun starts the program on each node. Ctrl-C
    ends the job.
    """
    from torchship.cli.run import parse_variable
    from torchship.display import display
    from torchship.engines.request import Request
    from torchship.launch.job import Shape
    from torchship.launch.published import find, for_nodes
    from torchship.launch.signals import interrupting
    from torchship.oci.reference import Reference
    from torchship.platform import Platform
    from torchship.runs.execution import declared
    from torchship.runs.recording import Plan, record, with_seed

    if port + max_restarts > _LAST_PORT:
        raise UsageError(
            f"--port {port} leaves too few ports above it for --max-restarts {max_restarts}: "
            "each attempt meets one port further up"
        )
    shape = Shape(
        nodes=nodes,
        processes=processes or max(gpus, 1),
        gpus=gpus,
        cpus=cpus,
        memory=parse_memory(memory),
        shared_memory=parse_memory(shared_memory),
        time_limit=parse_time(time_limit),
        max_restarts=max_restarts,
        port=port,
    )
    variables = dict(parse_variable(text) for text in environment)
    chosen = parse_seeds(seeds)
    options = ClusterOptions(
        runtime=runtime,
        partition=partition,
        account=account,
        kind=kind,
        namespace=namespace,
        context=context_name,
        pull_secret=pull_secret,
        output_claim=output_claim,
    )
    options.check(on)
    store = open_store()
    with display() as progress:
        found = find(
            Reference.parse(reference),
            store,
            platform=Platform.parse(platform) if platform else None,
            choice=for_nodes(gpus),
            variant=variant,
        )
        store.release()  # a cluster takes what it needs: `prune` need not wait for the job's end
        if not found.image.entrypoint:  # which what follows -- would be the arguments of
            check_command(command, found.image.command)
        stated = declared(found.image)
        seeds_of_runs = _planned(chosen, count, stated)
        request = Request(
            image=found.image, command=command, environment=variables, network=True, stdout=2
        )
        chosen_cluster = _cluster(on, found, shape, options, store, progress)
        with interrupting(), closing(chosen_cluster) as cluster:
            if dry_run:
                first = with_seed(request, stated, seeds_of_runs[0])
                click.echo(cluster.description(replace(first, output=Path("output"))), nl=False)
                return
            cluster.prepare(found.image, progress=progress)
            directory = run_directory(output, found.image.descriptor.digest)
            plan = Plan(
                request=request,
                seeds=seeds_of_runs,
                afresh=on == "kubernetes",
                name=reference,
                index=found.top.digest,
            )
            made = record(plan, cluster, declared=stated, directory=directory, progress=progress)
    made = dataclasses.replace(made, engine=f"{cluster.name}, {shape}")
    _finish(made, stated, directory)


def _planned(chosen: tuple[int, ...], count: int, stated: Declared) -> tuple[int | None, ...]:
    if stated.seed is None and (chosen or count > 1):
        raise UsageError(
            "the image does not say how a seed is given to its program",
            hint='write seed = "--seed {seed}" into its [tool.torchship], and push it again',
        )
    return planned(chosen, count, seeded=stated.seed is not None)


def _finish(made: Record, stated: Declared, directory: RecordDirectory) -> None:
    """Write the record and tell what the runs gave; raise `RunError` where one failed."""
    from torchship.cli.report import draw_beside
    from torchship.runs.recording import check
    from torchship.runs.statement import encode

    lacking = None
    try:
        check(made, stated, directory)
    except MetricsError as error:  # the training itself took place
        lacking = error.message
    directory.record.write_bytes(encode(made))
    show(made)
    if lacking is None:
        draw_beside(directory.path)
    else:
        click.echo(f"no reproduction can be judged by this record: {lacking}", err=True)
    click.echo(directory.record)


class ClusterOptions(Struct, frozen=True, kw_only=True):
    """What only one kind of cluster takes."""

    runtime: str | None
    partition: str | None
    account: str | None
    kind: str | None
    namespace: str | None
    context: str | None
    pull_secret: str | None
    output_claim: str | None

    def check(self, on: str) -> None:
        """Raise `UsageError` for an option that a cluster has no use for."""
        slurm = {
            "--with": self.runtime,
            "--partition": self.partition,
            "--account": self.account,
        }
        kubernetes = {
            "--kind": self.kind,
            "--namespace": self.namespace,
            "--context": self.context,
            "--pull-secret": self.pull_secret,
            "--output-claim": self.output_claim,
        }
        others, whose = (kubernetes, "Kubernetes") if on == "slurm" else (slurm, "Slurm")
        for option, value in others.items():
            if value is not None:
                raise UsageError(f"{option} is for {whose} alone, and this is --on {on}")


def _cluster(
    on: str, found: Found, shape: Shape, options: ClusterOptions, store: Store, progress: Progress
) -> Cluster:
    if on == "slurm":
        from torchship.launch.slurm.cluster import Slurm

        return Slurm(
            found.reference,
            shape,
            store=store,
            with_=options.runtime,
            partition=options.partition,
            account=options.account,
            progress=progress,
        )
    from torchship.launch.kubernetes.cluster import Kubernetes
    from torchship.launch.kubernetes.settings import Settings

    settings = Settings(
        kind="trainjob" if options.kind == "trainjob" else "job",
        namespace=options.namespace,
        context=options.context,
        pull_secret=options.pull_secret,
        output_claim=options.output_claim,
    )
    return Kubernetes(found.reference, shape, settings=settings, progress=progress)


def parse_time(text: str | None) -> int | None:
    """Read an amount of time: ``30m``, ``12h``, ``2d``, ``90s``, or ``1:30:00``; in seconds."""
    if text is None:
        return None
    seconds = 0
    if match := re.fullmatch(r"([0-9]{1,9})([smhd])", text):
        seconds = int(match[1]) * _UNITS[match[2]]
    elif match := re.fullmatch(r"([0-9]{1,6}):([0-5][0-9]):([0-5][0-9])", text):
        seconds = int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3])
    if not seconds:
        raise UsageError(
            f"--time {text!r} is not an amount of time", hint="write it as 30m, 12h, 2d or 1:30:00"
        )
    return seconds
