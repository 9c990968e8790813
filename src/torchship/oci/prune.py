"""Giving back disk space: mark what the store's images need, sweep the rest."""

from __future__ import annotations

import fcntl
import re
import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct

from torchship.digest import Descriptor, Digest
from torchship.errors import BlobDamaged, BlobMissing, ManifestError
from torchship.oci import durable, index
from torchship.oci.artifact import subject_of
from torchship.oci.documents import CONFIG_LIMIT, ConfigObject, decode
from torchship.oci.folders import remove
from torchship.oci.image import children
from torchship.oci.store import Store

WAIT = 10.0
"""Seconds to wait for other processes to leave the store."""

LEASE = "boot"
"""File of an unpacked layer: whoever uses the layer for long has it locked, as readers do."""

JOBS = "launch"
"""Folder of the store with one, ``job-*``, for each job of a cluster that is held."""

JOB_LEASE = "lease"
"""File of such a folder: whoever needs the job has it locked, as readers do."""

_SETTLED = 3600.0  # seconds after which a blob that no torchship has looked at is no one's
_DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}")


class Pruned(Struct, frozen=True, kw_only=True):
    """What `prune` removed. ``size`` is in bytes."""

    blobs: int
    layers: int
    unpacked: int
    size: int


def prune(store: Store, *, keep: timedelta = timedelta(0), wait: float = WAIT) -> Pruned:
    """Remove every blob, derived layer and unpacked folder that no image needs.

    Also removes the folders of cluster jobs that no process holds any more, what uv unpacked
    while resolving, and blobs that came in part. Derived layers used within ``keep`` stay, and
    so do downloads (`free_downloads`). Waits for other users of the store, then raises
    `StoreError`.
    """
    with store.alone(wait):
        needed = _mark(store)
        diff_ids = _diff_ids(store, needed)
        oldest = datetime.now(UTC) - keep
        forgotten = 0
        for key in tuple(store.derived):
            layer = store.derived.get(key)
            if layer is not None and layer.digest in store.blobs:
                recent = keep and store.derived.used(key) >= oldest
                if recent or layer.digest in needed:
                    needed.add(layer.digest)
                    diff_ids.add(layer.diff_id)
                    continue
            store.derived.forget(key)
            forgotten += 1
        size = durable.sweep(store.temporary) + durable.sweep(store.partial)
        removed = 0
        for digest in tuple(store.blobs):
            if digest not in needed and not _may_be_in_use(store, digest):
                size += store.blobs.remove(digest)
                removed += 1
        folders, freed = _sweep_unpacked(store, diff_ids)
        freed += _sweep_jobs(store)
        _sweep_files(store)
        resolver = store.home / "uv"
        freed += _delete(resolver) if resolver.is_dir() else 0
    return Pruned(blobs=removed, layers=forgotten, unpacked=folders, size=size + freed)


def free_downloads(store: Store, *, wait: float = WAIT) -> int:
    """Remove downloaded wheels, packages and data, of which layers are made; return their bytes.

    Images stay whole; what is built anew fetches again what its layers need. Waits as `prune`.
    """
    with store.alone(wait):
        return _delete(store.downloads)


def downloaded(store: Store) -> int:
    """Return the bytes of the files that `free_downloads` would remove."""
    sizes = (path.stat().st_size for path in store.downloads.rglob("*") if path.is_file())
    return sum(sizes)


def _mark(store: Store) -> set[Digest]:
    """Return what the entries of ``index.json`` need; referrers live as long as their subject."""
    needed: set[Digest] = set()
    waiting: list[tuple[Digest, Descriptor]] = []
    for entry in store.entries():
        subject = None if entry.name else subject_of(store, entry.descriptor)
        if subject is None:
            _reach(store, entry.descriptor, needed)
        else:
            waiting.append((subject, entry.descriptor))
    # A referrer may itself be referred to: go on until nothing more comes alive.
    while alive := [item for item in waiting if item[0] in needed]:
        for item in alive:
            waiting.remove(item)
            _reach(store, item[1], needed)
    if waiting:
        dead = frozenset(descriptor.digest for _, descriptor in waiting)
        with store.locked_index() as path:
            index.change(path, store.temporary, lambda old: old.dropping(dead))
    return needed


def _reach(store: Store, descriptor: Descriptor, needed: set[Digest]) -> None:
    """Mark a descriptor and all below it; what is missing or unreadable leads no further."""
    stack = [descriptor]
    while stack:
        current = stack.pop()
        if current.digest in needed:
            continue
        needed.add(current.digest)
        try:
            stack.extend(children(store, current))
        except BlobDamaged as error:
            store.report(error)
        except (BlobMissing, ManifestError):
            continue


def _diff_ids(store: Store, needed: Iterable[Digest]) -> set[Digest]:
    """Return the diff_ids of the images that stay: the names of their unpacked folders."""
    found: set[Digest] = set()
    for digest in needed:
        path = store.blobs.path(digest)
        if not path.is_file() or path.stat().st_size > CONFIG_LIMIT:
            continue
        with path.open("rb") as stream:
            raw = stream.read(1)
            if raw != b"{":  # every config is a JSON object, and no layer begins so
                continue
            raw += stream.read(CONFIG_LIMIT)
        try:
            config = decode(raw, ConfigObject, str(digest))
        except ManifestError:
            continue
        for text in config.rootfs.diff_ids or ():
            if _DIFF_ID.fullmatch(text):
                found.add(Digest.parse(text))
    return found


def _may_be_in_use(store: Store, digest: Digest) -> bool:
    """Tell whether another tool may just be writing an image that will need this blob."""
    if store.blobs.is_stamped(digest):
        return False
    return time.time() - store.blobs.path(digest).stat().st_mtime < _SETTLED


def _sweep_unpacked(store: Store, keep: set[Digest]) -> tuple[int, int]:
    names = {digest.hex for digest in keep}
    folders, size = 0, 0
    with durable.writing(store.unpacked):
        present = tuple(store.unpacked.iterdir()) if store.unpacked.is_dir() else ()
    for path in present:
        if path.name.partition(".")[0] in names:
            continue
        if path.is_dir() and not path.is_symlink():
            if _is_leased(path / LEASE):
                continue
            folders += 1
            size += _remove_tree(path)
        else:
            with durable.writing(path):
                path.unlink(missing_ok=True)
    return folders, size


def _sweep_jobs(store: Store) -> int:
    size = 0
    for path in (store.home / JOBS).glob("job-*"):
        if path.is_dir() and not path.is_symlink() and not _is_leased(path / JOB_LEASE):
            size += _delete(path)
    return size


def _is_leased(lease: Path) -> bool:
    try:
        with lease.open("r+b") as file:  # NFS locks for writers alone what can be written
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:  # half of one
        return False
    except BlockingIOError:
        return True
    return False


def _remove_tree(path: Path) -> int:
    """Delete a folder under another name first: half of one must never pass for the whole."""
    doomed = path.with_name(f"part-{secrets.token_hex(8)}")
    with durable.writing(path):
        path.rename(doomed)
    return _delete(doomed)


def _delete(path: Path) -> int:
    with durable.writing(path):
        return remove(path)


def _sweep_files(store: Store) -> None:
    """Remove the locks that nobody can hold now, and what is noted of blobs that are gone."""
    with durable.writing(store.home):
        for path in (store.home / "locks").iterdir():
            path.unlink(missing_ok=True)
        for path in (*(store.home / "stamps").iterdir(), *store.origins):
            if not (store.blobs.folder / path.name).exists():
                path.unlink(missing_ok=True)
