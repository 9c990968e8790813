"""Unpacking layers for the native engine: each once, shared by every image that has it.

A layer is hostile until it is unpacked: paths are opened one part at a time below a directory
descriptor and no symlink is ever followed, so that nothing is written outside the folder, and
the uncompressed stream must have the layer's diff_id or nothing is kept. Files belong to the
caller: owners, extended attributes, setuid bits are left out. Other modes stay, such as 0777, so
nobody else enters the folder that holds them. Source: OCI image-spec v1.1,
layer.md ("Applying Changesets", "Whiteouts").
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from torchship.engines import syscalls
from torchship.engines.extract import Folder
from torchship.engines.uncompress import Uncompressed
from torchship.errors import HostileInput, LayerError, StoreError
from torchship.layers.layer import Layer
from torchship.layers.tarstream import members
from torchship.oci.folders import private, remove
from torchship.oci.prune import LEASE

_ELSEWHERE = (
    "free some space there (`torchship prune` may), or name another folder in TORCHSHIP_HOME"
)
_BOOT = Path("/proc/sys/kernel/random/boot_id")

OpenLayer = Callable[[Layer], BinaryIO]
"""Opens a layer's blob, as it is compressed."""


def tree(unpacked: Path, layer: Layer) -> Path:
    """Return where a layer's files are, once it is unpacked."""
    return unpacked / layer.diff_id.hex / "root"


def unpack_all(
    layers: Sequence[Layer], open_layer: OpenLayer, unpacked: Path, *, workers: int | None = None
) -> tuple[Path, ...]:
    """Unpack what is not yet unpacked, several at a time; return the folders in order.

    Safe against other processes that do the same, and against being killed.
    """
    _keep(unpacked)
    wanted = {layer.diff_id: layer for layer in layers if not _usable(unpacked, layer)}
    largest_first = sorted(wanted.values(), key=lambda layer: layer.size, reverse=True)
    if len(largest_first) == 1:  # an edit's source: not worth a thread, nor the import
        unpack(largest_first[0], open_layer, unpacked)
    elif largest_first:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
            for _ in pool.map(lambda layer: unpack(layer, open_layer, unpacked), largest_first):
                pass
    return tuple(tree(unpacked, layer) for layer in layers)


def lease(folders: Sequence[Path]) -> ExitStack:
    """Keep unpacked layers, as `unpack_all` returned them, from `prune`; until it is closed.

    The store must be held meanwhile, so that they are still there; it need not be any longer.
    """
    with ExitStack() as stack:
        for folder in folders:
            file = stack.enter_context((folder.parent / LEASE).open("rb"))
            fcntl.flock(file, fcntl.LOCK_SH)
        return stack.pop_all()


def unpack(layer: Layer, open_layer: OpenLayer, unpacked: Path) -> Path:
    """Unpack one layer, unless it is there already; return its folder.

    Raises `LayerError` for a layer that breaks a rule or has another diff_id.
    """
    _keep(unpacked)
    final = unpacked / layer.diff_id.hex
    try:
        with _alone(final.with_suffix(".lock")):
            if _usable(unpacked, layer):
                return final / "root"
            scratch = unpacked / f"{layer.diff_id.hex}.part"
            remove(final)
            remove(scratch)  # of a process that was killed: the lock says that nobody is at it
            try:
                (scratch / "root").mkdir(mode=0o755, parents=True)
                with open_layer(layer) as blob:
                    _extract(layer, blob, scratch / "root")
                (scratch / LEASE).write_text(_BOOT.read_text())
                scratch.rename(final)
            except BaseException:
                remove(scratch)
                raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise LayerError(f"layer {layer.digest.short} has a name that is too long") from None
        raise StoreError(
            f"layer {layer.digest.short} could not be unpacked into {unpacked}: {error.strerror}",
            hint=_ELSEWHERE,
        ) from error
    return final / "root"


def _keep(unpacked: Path) -> None:
    try:
        private(unpacked)
        if not os.access(unpacked, os.R_OK | os.X_OK):  # another user's, who keeps it for themself
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise StoreError(
            f"{unpacked} cannot be kept from other users: {error.strerror}", hint=_ELSEWHERE
        ) from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock file, which stays, against other processes and threads."""
    while True:
        with path.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock.fileno()).st_nlink:
                yield
                return
        # `prune` took the file away between the two calls above: then lock the one there now.


def unsettled(unpacked: Path, layers: Sequence[Layer], *, age: float) -> tuple[Layer, ...]:
    """Return the layers that were unpacked ``age`` seconds ago or earlier and never settled."""
    before = time.time() - age
    found = []
    for layer in {layer.diff_id: layer for layer in layers}.values():
        folder = tree(unpacked, layer).parent
        if not (folder / "settled").exists() and (folder / LEASE).stat().st_mtime <= before:
            found.append(layer)
    return tuple(found)


def settle(unpacked: Path, layers: Sequence[Layer]) -> None:
    """Write unpacked layers to the disk for good: until then they are trusted in this boot only.

    Takes seconds after a large layer was unpacked, and a process cannot end meanwhile; so it is
    for layers that the system has written by itself, where it takes none.
    """
    descriptor = os.open(unpacked, os.O_RDONLY)
    try:
        syscalls.sync_filesystem(descriptor)
    finally:
        os.close(descriptor)
    for layer in layers:
        (tree(unpacked, layer).parent / "settled").touch()


def _usable(unpacked: Path, layer: Layer) -> bool:
    """Say whether a layer is unpacked, and certainly whole.

    A process that is killed leaves no folder of that name. A machine that loses power may
    leave one whose files never reached the disk: it counts only once it was settled.
    """
    folder = unpacked / layer.diff_id.hex
    if (folder / "settled").exists():
        return True
    try:
        return (folder / LEASE).read_text() == _BOOT.read_text()
    except FileNotFoundError:
        return False


def _extract(layer: Layer, blob: BinaryIO, root: Path) -> None:
    with Uncompressed(blob) as source, Folder(root) as folder:
        try:
            for member in members(source):
                folder.add(member, source)
        except LayerError:
            raise
        except HostileInput as error:
            raise LayerError(f"layer {layer.digest.short}: {error.message}") from None
        folder.finish()
        found = source.digest()
    if found != layer.diff_id:
        raise LayerError(
            f"layer {layer.digest.short} unpacks to {found.short}, "
            f"and its image says {layer.diff_id.short}",
            hint="pull or build the image again; if it stays so, do not trust its publisher",
        )
