"""Layers out of recipes: only those that the store does not know, in parallel processes."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from torchship.amounts import counted, size
from torchship.digest import Digest
from torchship.errors import StoreError
from torchship.layers.bytecode import BytecodeRecipe, DebianBytecodeRecipe
from torchship.layers.layer import Interpreter, Layer, Materials, Recipe, key, labels
from torchship.layers.source import SourceRecipe, large
from torchship.oci.store import Store
from torchship.progress import Progress

if TYPE_CHECKING:
    from concurrent.futures import Future

WORKERS = 8
"""More processes than this gain nothing: one wheel, torch, takes longest."""

_COMPILED = (BytecodeRecipe, DebianBytecodeRecipe)
_SAFE_PATH = "PYTHONSAFEPATH"
_NAMED = 3  # of the large files, before the rest is counted

Gather = Callable[[Collection[Digest]], Mapping[Digest, Path]]
"""Fetches files by their sha256."""

FindInterpreter = Callable[[Sequence[Layer]], Interpreter | None]
"""Gives a Python of the image's version, from the base's layers; None: not without them."""

FindPublished = Callable[[], Mapping[Digest, Layer]]
"""Gives the layers that published images have, by the key of their recipe."""


def derive(
    recipes: Sequence[Recipe],
    *,
    store: Store,
    base: Sequence[Layer],
    gather: Gather,
    interpreter: FindInterpreter,
    progress: Progress,
    published: FindPublished | None = None,
) -> tuple[Layer, ...]:
    """Return the layer of each recipe, in order, making those that the store lacks.

    ``base`` are layers below the first recipe, for an image that stands on a published one;
    otherwise the first recipe is the base. ``interpreter`` is asked before the base is made,
    with no layers, and again when it is. Files are gathered only for what is made. What is
    ``published`` is taken as it is said to be, without its bytes, and the store does not learn
    of it; it is asked for only where more than the source is missing.
    """
    layers = {
        place: layer
        for place, recipe in enumerate(recipes)
        if (layer := store.known(key(recipe))) is not None
    }
    missing = [place for place in range(len(recipes)) if place not in layers]
    if published and not all(isinstance(recipes[place], SourceRecipe) for place in missing):
        layers |= _taken(recipes, missing, published())
        missing = [place for place in missing if place not in layers]
    for place in missing:
        if isinstance(source := recipes[place], SourceRecipe):
            _tell_caches(source, progress)
            _tell_large(source, progress)
    if not missing:
        return tuple(layers[place] for place in range(len(recipes)))
    if all(isinstance(recipes[place], SourceRecipe) for place in missing):
        # An edit: to start a process, or to look for files, would take longer than the layer.
        bare = Materials(files={}, scratch=store.temporary)
        return tuple(
            layers.get(place) or store.derive(recipe, bare) for place, recipe in enumerate(recipes)
        )
    import tempfile

    files = gather({digest for place in missing for digest in recipes[place].needs})
    with tempfile.TemporaryDirectory(prefix="torchship-") as scratch:
        materials = Materials(files=files, scratch=Path(scratch))
        _in_processes(recipes, missing, layers, store, list(base), materials, interpreter, progress)
    return tuple(layers[place] for place in range(len(recipes)))


def _tell_caches(source: SourceRecipe, progress: Progress) -> None:
    """Name what stays out though no pattern says so: a downloaded model lies in a cache."""
    for name in source.caches:
        progress.say(
            f"{name}/ stays out of the image, as it says that it is a cache (CACHEDIR.TAG): "
            f"`!{name}` in .dockerignore takes it in, `{name}` there ends this line"
        )


def _tell_large(source: SourceRecipe, progress: Progress) -> None:
    """Name what is large in a source that is to be packed: image archives end up there."""
    found = large(source.files)
    if found:
        names = ", ".join(f"{file.path} ({size(file.size)})" for file in found[:_NAMED])
        more = len(found) - _NAMED
        rest = f" and {counted(more, 'other file')}" if more > 0 else ""
        progress.say(
            f"large in the source layer, which every edit makes again: {names}{rest}; "
            ".dockerignore leaves out what the program does not need, [[tool.torchship.data]] (and "
            "TORCHSHIP_MIRRORS=$PWD) gives data a layer of its own, and `run -v` mounts them"
        )


def _taken(
    recipes: Sequence[Recipe], missing: Sequence[int], offered: Mapping[Digest, Layer]
) -> dict[int, Layer]:
    """Return the missing layers that are published, under our own words for them."""
    found = {place: offered.get(key(recipes[place])) for place in missing}
    return {
        place: replace(layer, annotations=MappingProxyType(labels(recipes[place])))
        for place, layer in found.items()
        if layer is not None
    }


def _in_processes(
    recipes: Sequence[Recipe],
    missing: Sequence[int],
    layers: dict[int, Layer],
    store: Store,
    base: list[Layer],
    materials: Materials,
    interpreter: FindInterpreter,
    progress: Progress,
) -> None:
    """Derive the missing layers, bytecode last: it is compiled by the base's own Python."""
    # Imported here: a build that makes nothing, or the source alone, starts no process.
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # The largest first, but for the base, which takes longest and which bytecode waits for.
    ordered = sorted(missing, key=lambda place: (place != 0, -_weight(recipes[place], materials)))
    compiled = [place for place in ordered if isinstance(recipes[place], _COMPILED)]
    plain = [place for place in ordered if place not in compiled]
    count = min(WORKERS, os.cpu_count() or 1, len(missing))
    running: dict[Future[_Derived], int] = {}
    task = progress.task(f"making {counted(len(missing), 'layer')}")
    method = get_context(_start_method())
    with _safe_path(), ProcessPoolExecutor(count, method, _prepare_worker) as pool:

        def start(places: Sequence[int], given: Materials) -> None:
            for place in places:
                running[pool.submit(_derive_one, store.home, recipes[place], given)] = place

        start(plain[:count], materials)
        try:
            # Looked for while the first layers are being made.
            materials = replace(materials, interpreter=interpreter(base) if compiled else None)
            if materials.interpreter is not None:
                start([place for place in ordered if place not in plain[:count]], materials)
                compiled = []
            else:
                start(plain[count:], materials)
            while running or compiled:
                if compiled:
                    below = base or [layers[0]] if 0 in layers or base else []
                    found = interpreter(below)
                    if found is not None:
                        start(compiled, replace(materials, interpreter=found))
                        compiled = []
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    place = running.pop(future)
                    seconds, remarks = future.result()
                    for remark in remarks:
                        progress.say(remark)
                    layer = layers[place] = store.derive(recipes[place], materials)  # known now
                    task.advance(layer.size)
                    progress.say(f"  {size(layer.size):>8}  {layer.title}  ({seconds:.1f} s)")
        except BrokenProcessPool:
            raise StoreError(
                "a process that was making a layer was killed",
                hint="see whether the machine ran out of memory, then build again: "
                "the layers that were finished are kept",
            ) from None
        except BaseException:
            # Waiting for what runs: a pool that is left to itself is still closing its pipes
            # when the interpreter ends, which then complains of them on the user's terminal.
            pool.shutdown(cancel_futures=True)
            raise
    task.finish()


def _start_method() -> str:
    """Return how workers begin: as copies of this process, unless a thread may hold a lock.

    A fresh interpreter for each worker would import everything again, a quarter of a second of
    processor time each. Outside Linux, system libraries do not survive being copied.
    """
    alone = sys.platform == "linux" and threading.active_count() == 1
    return "fork" if alone else "spawn"


@contextmanager
def _safe_path() -> Iterator[None]:
    """Have a fresh interpreter look for no module where the user is: in a stranger's project."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


def _weight(recipe: Recipe, materials: Materials) -> int:
    return sum(materials.files[digest].stat().st_size for digest in recipe.needs)


class _Derived(NamedTuple):
    seconds: float
    remarks: list[str]


def _derive_one(home: Path, recipe: Recipe, materials: Materials) -> _Derived:
    """Make a layer in the store; return the seconds that it took, and what there is to tell."""
    began = time.monotonic()
    remarks: list[str] = []
    Store.open(home).derive(recipe, replace(materials, say=remarks.append))
    return _Derived(time.monotonic() - began, remarks)


def _prepare_worker() -> None:
    """Let Ctrl-C end a worker quietly, and a worker end when its parent is gone."""
    from multiprocessing import parent_process

    # A worker holds a record of each file and no cycles: to look for them takes 4% of its time.
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    from multiprocessing import connection

    connection.wait([sentinel])
    os._exit(1)
