"""An image's layers as one tree: what an OCI bundle stands on.

The layers are unpacked already, each once, as overlays stack them; a tree of an image shares
their files by hard links, and costs no space of its own. Sources: OCI image-spec v1.1, layer.md
("Applying Changesets"), and the kernel's Documentation/filesystems/overlayfs.rst ("whiteouts and
opaque directories"), which is how an unpacked layer says what is gone.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from torchship.digest import Digest
from torchship.engines import syscalls, unpack
from torchship.errors import StoreError
from torchship.layers.layer import Layer
from torchship.oci.folders import remove
from torchship.oci.prune import LEASE
from torchship.oci.store import Store

_OPAQUE = "user.overlay.opaque"
_REVISION = 1
"""Of how trees are made: one of another revision is not taken for one of this."""


def tree(
    store: Store, layers: Sequence[Layer], *, folders: Sequence[str] = (), files: Sequence[str] = ()
) -> Path:
    """Return the folder that holds an image's files, making it where it is not there yet.

    ``folders`` and ``files`` are there, too, empty unless the image has them: to be mounted on.
    It belongs to the caller, and to nobody's program: whoever runs it mounts it read-only. It
    stays until `prune`, and as long as it is leased (`engines.unpack.lease`); the store must be
    held. Raises `LayerError` for a layer that breaks a rule.
    """
    words = [str(_REVISION), *folders, *files, *(str(layer.diff_id) for layer in layers)]
    final = store.unpacked / Digest.of(" ".join(words).encode()).hex
    root = final / "root"
    if (final / LEASE).exists():
        return root
    unpacked = unpack.unpack_all(
        layers, lambda layer: store.open_blob(layer.digest), store.unpacked
    )
    with unpack.lease(unpacked):
        scratch = final.with_name(f"{final.name}.{os.getpid()}.part")
        remove(scratch)
        try:
            (scratch / "root").mkdir(parents=True, mode=0o755)
            merge(unpacked, scratch / "root")
            _complete(scratch / "root", folders, files)
            (scratch / LEASE).touch()
            _settle(scratch)
            _rename(scratch, final)
        except OSError as error:
            raise StoreError(
                f"the image could not be unpacked into {store.unpacked}: {error.strerror}",
                hint="free some space there, or name another folder in TORCHSHIP_HOME",
            ) from error
        finally:
            remove(scratch)
    return root


def merge(folders: Sequence[Path], root: Path) -> None:
    """Put unpacked layers, from the bottom up, into one empty folder.

    No symlink is followed in it: what a layer has as a folder becomes one, whatever stood there.
    """
    modes: dict[Path, int] = {}
    for folder in dict.fromkeys(folders):
        _add(folder, root, modes)
    for path, mode in sorted(modes.items(), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.chmod(mode)


def _add(folder: Path, into: Path, modes: dict[Path, int]) -> None:
    waiting = [(folder, into)]
    while waiting:
        source, target = waiting.pop()
        modes[target] = stat.S_IMODE(source.stat().st_mode) | 0o500
        with os.scandir(source) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                place = target / entry.name
                if stat.S_ISDIR(found.st_mode):
                    _make_folder(place, modes, opaque=_is_opaque(entry.path))
                    waiting.append((source / entry.name, place))
                    continue
                _clear(place, modes)
                if stat.S_ISLNK(found.st_mode):
                    place.symlink_to(Path(entry.path).readlink())
                elif stat.S_ISREG(found.st_mode):
                    _link(entry.path, place)
                elif stat.S_ISFIFO(found.st_mode):
                    os.mkfifo(place, stat.S_IMODE(found.st_mode))
                # else a whiteout: what stood there is gone now


def _make_folder(place: Path, modes: dict[Path, int], *, opaque: bool) -> None:
    if opaque or place.is_symlink() or not place.is_dir():
        _clear(place, modes)
    place.mkdir(mode=0o755, exist_ok=True)


def _clear(place: Path, modes: dict[Path, int]) -> None:
    if place.is_dir() and not place.is_symlink():
        remove(place)
        # A symlink may come in its stead, and would lead the modes of what was below elsewhere
        for path in [path for path in modes if path.is_relative_to(place)]:
            del modes[path]
    else:
        place.unlink(missing_ok=True)


def _link(source: str, place: Path) -> None:
    try:
        os.link(source, place, follow_symlinks=False)
    except OSError as error:
        # another file system, or one file under more names than this one allows
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
            raise
        shutil.copy2(source, place, follow_symlinks=False)


def _is_opaque(path: str) -> bool:
    with suppress(OSError):
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    return False


def _complete(root: Path, folders: Sequence[str], files: Sequence[str]) -> None:
    """Add what is missing, where no symlink of the image's stands in the way."""
    for name in (*folders, *files):
        place = root
        *above, last = name.split("/")
        for part in above:
            place /= part
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                break
            place.mkdir(exist_ok=True)
        else:
            if not os.path.lexists(place / last):
                (place / last).mkdir() if name in folders else (place / last).touch()


def _settle(folder: Path) -> None:
    """Write a tree to the disk: it counts as whole from now on, after a loss of power, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        syscalls.sync_filesystem(descriptor)
    finally:
        os.close(descriptor)


def _rename(scratch: Path, final: Path) -> None:
    try:
        scratch.rename(final)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise  # otherwise another process was faster
