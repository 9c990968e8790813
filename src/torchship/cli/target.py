"""TARGET, a directory or an image reference, made ready to run: built, found or pulled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct, field

from torchship.cli import common
from torchship.cli.common import check_command, choice, load, open_store
from torchship.cli.project import built
from torchship.errors import ImageNotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchship.digest import Descriptor
    from torchship.engines.gpu import Decision, Gpus
    from torchship.engines.request import Engine
    from torchship.oci.image import Image
    from torchship.oci.store import Store
    from torchship.oci.variant import Choice
    from torchship.platform import Platform
    from torchship.progress import Progress

Command = Callable[..., None]


class Options(Struct, frozen=True, kw_only=True):
    """How an image is chosen and run, as the user gave it, checked.

    ``processors`` are cores, ``memory`` is bytes; None leaves each unlimited. ``command`` is run
    in place of the image's own, ``variables`` are added to its environment.
    """

    engine: str
    gpus: Gpus
    platform: Platform
    variant: str | None
    network: bool
    processors: float | None
    memory: int | None
    lock_file: Path | None = None
    command: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def run_options(*, network: str, lock: bool = True) -> Callable[[Command], Command]:
    """Give a command the options of how an image is run; it takes them as one `Options`.

    ``network`` is the help of ``--network``; ``lock`` adds ``--lock``, where TARGET may be a
    directory. Raises `UsageError`, before the command begins, for what cannot be read.
    """
    stack = [
        common.engine,
        common.gpus,
        click.option("--network", is_flag=True, help=network),
        common.cpus,
        common.memory,
        common.platform,
        common.variant,
        *([common.lock_file] if lock else []),
    ]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def parsed(
            *,
            engine: str,
            gpus: str,
            network: bool,
            cpus: float | None,
            memory: str | None,
            platform: str | None,
            variant: str | None,
            lock_file: Path | None = None,
            **others: object,
        ) -> None:
            # imported here, as everything that a command alone needs: others start without it
            from torchship.engines.gpu import Gpus
            from torchship.platform import Platform

            options = Options(
                engine=engine,
                gpus=Gpus.parse(gpus),
                platform=Platform.parse(platform) if platform else Platform.host(),
                variant=variant,
                network=network,
                processors=cpus,
                memory=common.parse_memory(memory),
                lock_file=lock_file,
            )
            command(options=options, **others)

        for option in reversed(stack):
            parsed = option(parsed)
        return parsed

    return decorate


class Ready(Struct, frozen=True, kw_only=True):
    """An image that can be run at once. ``top`` is what its name stands for, maybe an index."""

    store: Store
    engine: Engine
    image: Image
    top: Descriptor
    name: str
    gpus: Gpus


def prepare(target: str, options: Options, progress: Progress) -> Ready:
    """Build or find or pull what TARGET stands for, and bring it to the engine that will run it."""
    from torchship import pipeline
    from torchship.engines.choose import check_platform, choose
    from torchship.engines.nvidia import UNCHECKED
    from torchship.oci import cuda

    store = open_store()
    chosen = choose(options.engine, store, progress=progress)
    check_platform(chosen, options.platform)
    checked = not options.variables.get(UNCHECKED)
    suiting = choice(options.variant, gpus=options.gpus, engine=chosen.name, checked=checked)
    decided = partial(_decided, wish=options.gpus, engine=chosen.name, checked=checked)
    top, name = _target(target, options, suiting, decided, store, progress)
    taken = options.variant or _variant(store, top, options.platform, suiting)
    image = pipeline.ready(store, top, options.platform, variant=taken, progress=progress)
    if not image.entrypoint:  # which what follows -- would be the arguments of
        check_command(options.command, image.command)
    decision = decided(cuda.of_image(image))
    if decision.said:
        progress.say(decision.said)
    chosen.prepare(image, progress=progress)
    store.release()  # the engine keeps what it needs: `prune` need not wait for a training's end
    return Ready(store=store, engine=chosen, image=image, top=top, name=name, gpus=decision.gpus)


def _target(
    target: str,
    options: Options,
    suiting: Choice,
    decided: Callable[[str | None], Decision],
    store: Store,
    progress: Progress,
) -> tuple[Descriptor, str]:
    """Return the image that TARGET stands for, building it if it is a directory; and its name."""
    from torchship.oci import cuda
    from torchship.oci.reference import HUB, OFFICIAL, Reference

    folder = Path(target)
    if folder.is_dir():
        project = load(folder, command=options.command)
        check_command(options.command, project.command)
        name = Reference.parse(project.name)
        one = suiting(project.torch) if len(project.torch) > 1 else None
        top = built(
            project,
            (name,),
            (options.platform,),
            options.lock_file,
            store,
            progress,
            variant=one,
            approve=lambda entry: decided(cuda.of_wheels(pin.filename for pin in entry.wheels)),
        )
        return top, project.name
    if target.startswith((".", "/", "~")):
        raise UsageError(f"there is no directory {target}", hint="name one that holds main.py")
    try:
        return store.find(target), target
    except ImageNotFound:
        if folder.parent.name and folder.parent.is_dir():
            raise UsageError(
                f"there is neither a directory {target} nor an image of that name in the store",
                hint=f"look into {folder.parent}/; an image is pulled by its full reference, "
                "as in docker.io/me/mnist:v0.1",
            ) from None
        if "/" not in target:
            # Most likely a mistyped directory: not to be answered with a stranger's image.
            near = store.nearest(target)
            meant = f"the store has {near}; else " if near else ""
            raise UsageError(
                f"there is neither a directory {target} here nor an image of that name in the "
                "store",
                hint=f"{meant}name a directory, or an image by its full reference: {HUB}/{OFFICIAL}"
                f"{target}",
            ) from None
        # imported here: a run of what is in the store speaks to no registry
        from torchship.oci.pull import pull

        reference = Reference.parse(target)
        progress.say(f"{target} is not in the store: pulling it from {reference.registry}")
    pulled = pull(
        reference,
        store,
        platform=options.platform,
        choice=suiting,
        approve=lambda image: decided(cuda.of_image(image)),
        progress=progress,
    )
    return pulled.descriptor, target


def _variant(store: Store, top: Descriptor, platform: Platform, suiting: Choice) -> str:
    """Return which of an image's variants to run; empty where it has none."""
    from torchship.oci.image import manifests
    from torchship.oci.variant import offered

    names = offered(manifests(store, top), platform)
    return suiting(names) if names else ""


def _decided(version: str | None, *, wish: Gpus, engine: str, checked: bool) -> Decision:
    """Decide which GPUs a program gets, by the CUDA that its image has; refuse what cannot be."""
    from torchship.engines.gpu import decide
    from torchship.engines.nvidia import survey

    return decide(wish, version, engine, survey(), checked=checked)
