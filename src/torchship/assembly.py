"""The layers of one platform's image: what it stands on, and what is derived from its pins."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from torchship.derive import Gather, derive
from torchship.digest import Digest
from torchship.errors import EngineError, LockError
from torchship.layers.layer import Interpreter, Layer
from torchship.layers.plan import plan
from torchship.layers.source import SourceRecipe
from torchship.platform import Platform
from torchship.progress import Progress
from torchship.project import modules
from torchship.project.lock import Lock, PlatformLock
from torchship.project.project import Project

if TYPE_CHECKING:
    from torchship.layers.users import UsersRecipe
    from torchship.oci.cache import Cache
    from torchship.oci.image import Image
    from torchship.oci.store import Store


def published_base(
    entry: PlatformLock, *, store: Store, progress: Progress, cache: Cache | None
) -> Image | None:
    """Return the image that the project's stands on; None for a base of Debian packages."""
    if entry.base.digest is None:
        return None
    from torchship.oci.base import base_image, fetch_base

    name = entry.base.reference
    below = base_image(name, entry.base.digest, entry.platform, store=store)
    wanted = [layer for layer in below.layers if cache is None or not cache.has(store, layer)]
    fetch_base(name, wanted, store=store, progress=progress)
    return below


class Content(Struct, frozen=True, kw_only=True):
    """What an image is assembled of: its layers, and where Python finds the project's packages.

    ``search_path`` is a folder of the image; empty where it need not be told of one.
    """

    layers: tuple[Layer, ...]
    search_path: str = ""


def content(
    project: Project,
    pins: Lock,
    entry: PlatformLock,
    *,
    below: Image | None = None,
    store: Store,
    progress: Progress,
    cache: Cache | None = None,
) -> Content:
    """Return what one platform's image holds, making the layers that the store does not know.

    ``entry`` are the lock's pins of that platform, and of that variant of it.

    ``below`` is a published image that it stands on; its layers come first, as they are.
    """
    under = below.layers if below else ()

    def interpreter(base: Sequence[Layer]) -> Interpreter | None:
        from torchship.engines.python import interpreter_for, on_host

        here = on_host(entry.python)
        if here is not None or not base:
            return here
        if not entry.platform.is_host:
            # Bytecode is the same for every platform, so this machine's base compiles it.
            base = _base_for_host(project, pins, entry, store=store, progress=progress)
        elif cache is not None:
            cache.bring(store, base)
        return interpreter_for(entry.python, base=base, store=store)

    recipes = plan(
        project,
        entry,
        pins.data,
        base_layers=len(under),
        interpreter=_interpreter_of(below, entry, store=store, cache=cache) if below else "",
        users=_users(below, store=store, cache=cache) if below else None,
    )
    made = derive(
        recipes,
        store=store,
        base=under,
        gather=_gatherer(project, pins, entry.platform, store=store, progress=progress),
        interpreter=interpreter,
        progress=progress,
        published=cache.layers if cache else None,
    )
    source = (each for each in recipes if isinstance(each, SourceRecipe))
    paths = [file.path for recipe in source for file in recipe.files]
    return Content(layers=under + made, search_path=modules.search_path(project, paths))


def _users(below: Image, *, store: Store, cache: Cache | None) -> UsersRecipe:
    """Return the recipe of the run user's name, with the base's own users where it is made."""
    from torchship.layers.layer import key
    from torchship.layers.users import UsersRecipe

    recipe = UsersRecipe(base=below.descriptor.digest)
    if store.known(key(recipe)) is not None or (cache and key(recipe) in cache.layers()):
        return recipe
    from torchship.oci.base import users

    if cache is not None:
        cache.bring(store, below.layers)
    passwd, group = users(store, below.layers)
    return replace(recipe, passwd=passwd, group=group)


def _interpreter_of(below: Image, entry: PlatformLock, *, store: Store, cache: Cache | None) -> str:
    """Return where a published base has its Python: as locked, or as its layers have it.

    Raises `LockError` where a lock that does not say where states another version, too.
    """
    if entry.base.interpreter:
        return entry.base.interpreter
    from torchship.oci.base import find_python

    def bring(layer: Layer) -> None:
        if cache is not None:  # else they were all fetched
            cache.bring(store, [layer])

    name = entry.base.reference
    found = find_python(below, name, store=store, fetch=bring)
    if found.version != entry.python:
        raise LockError(
            f"{name} has Python {found.version}, and the lock says {entry.python}",
            hint="lock its base again: torchship lock --upgrade",
        )
    return found.path


def _gatherer(
    project: Project, pins: Lock, platform: Platform, *, store: Store, progress: Progress
) -> Gather:
    def fetch(wanted: Collection[Digest]) -> Mapping[Digest, Path]:
        from torchship.project.gather import gather  # a build that makes nothing needs no files

        return gather(
            wanted,
            project=project,
            lock=pins,
            platform=platform,
            downloads=store.downloads,
            progress=progress,
        )

    return fetch


def _base_for_host(
    project: Project, pins: Lock, entry: PlatformLock, *, store: Store, progress: Progress
) -> tuple[Layer, ...]:
    """Return a base that this machine can run, with the Python that another platform's has."""
    from torchship.engines.python import interpreter_for
    from torchship.layers.debian import DebianRecipe
    from torchship.oci.base import resolve_image
    from torchship.project import resolve

    host = Platform.host()
    held = {each.platform: each for each in pins.platforms}.get(host)
    if held is None:
        bare = replace(project, requirements=None, data=(), packages=())
        found = resolve.resolve(
            bare,
            platforms=(host,),
            progress=progress,
            state=store.home / "apt",
            cache=store.home / "uv",
            resolve_image=partial(resolve_image, store=store, progress=progress),
        )
        held, pins = found.platform(host), found
    if held.python != entry.python:
        raise EngineError(
            f"bytecode for {entry.platform} needs Python {entry.python}, "
            f"and the base for {host} has {held.python}",
            hint="lock both platforms at once: torchship lock --upgrade "
            f"--platform {host} --platform {entry.platform}",
        )
    published = published_base(held, store=store, progress=progress, cache=None)
    if published is not None:
        return published.layers
    suite = held.base.reference.partition(":")[2]
    return derive(
        (DebianRecipe(suite=suite, packages=held.base.packages),),
        store=store,
        base=(),
        gather=_gatherer(project, pins, host, store=store, progress=progress),
        interpreter=lambda base: interpreter_for(entry.python, base=base, store=store),
        progress=progress,
    )
