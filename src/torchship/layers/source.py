"""The project's own files: the last layer, the one that changes with every edit.

What goes in is a `Selection`. Each file is read once for its digest and for what looks like a
secret, and again when the layer is written.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from torchship import canonical
from torchship.amounts import counted
from torchship.digest import CHUNK, Digest
from torchship.errors import ProjectError
from torchship.layers import secrets
from torchship.layers.archive import Archive, Entry, Kind
from torchship.layers.dockerignore import Patterns
from torchship.layers.layer import Materials
from torchship.layers.layout import GID, UID, WORKDIR
from torchship.layers.selection import Selection

LARGE = 64 << 20
"""Bytes: a file of that size is better pinned as data, in a layer of its own."""


class SourceFile(Struct, frozen=True, kw_only=True):
    """A file or symlink of the project, or a folder of which nothing else tells.

    ``path`` is relative, with slashes. A symlink has a ``target`` and neither size nor digest, a
    folder has none of them; ``digest`` is of a file's bytes.
    """

    path: str
    executable: bool = False
    size: int = 0
    digest: Digest | None = None
    target: str = ""

    @property
    def is_folder(self) -> bool:
        """True for a folder that no file stands in."""
        return self.digest is None and not self.target

    def as_json(self) -> list[object]:
        """Return all that the layer's bytes depend on."""
        content = str(self.digest) if self.digest is not None else self.target or None
        return [self.path, self.executable, self.size, content]


class Tree(Struct, frozen=True, kw_only=True):
    """What goes into the image, sorted by path, and which caches stay out unasked."""

    files: tuple[SourceFile, ...]
    caches: tuple[str, ...] = ()


def collect(root: Path, *, exclude: Iterable[str] = (), allow: Iterable[str] = ()) -> Tree:
    """Read which files go into the image, and hash them.

    ``allow`` are patterns of files that are no secrets, whatever they look like. Raises
    `SecretFound`, and `ProjectError` that names every file which cannot go in, and why.
    """
    allowed = Patterns.parse(allow, origin="allow in [tool.torchship]")
    selection = Selection(root, exclude=exclude)
    files: list[SourceFile] = []
    faults: list[str] = []
    findings: list[secrets.Finding] = []
    for entry, path in selection:
        try:
            file, reason = _read(root, entry, path)
        except ProjectError as fault:
            faults.append(fault.message)
            continue
        except OSError as fault:
            faults.append(f"{path} cannot be read ({fault.strerror})")
            continue
        files.append(file)
        if reason is not None and not allowed.matches(path):
            findings.append(secrets.Finding(path=path, reason=reason))
    faults += selection.faults
    if faults:
        raise ProjectError(
            f"{root} cannot go into an image: {'; '.join(sorted(faults))}",
            hint="mend these files, or name them in .dockerignore",
        )
    secrets.refuse(findings)
    return Tree(
        files=tuple(sorted(files, key=lambda file: file.path.encode())),
        caches=tuple(sorted(selection.caches)),
    )


def large(files: Iterable[SourceFile]) -> tuple[SourceFile, ...]:
    """Return the files that are better pinned as data: every edit uploads all of the source."""
    return tuple(file for file in files if file.size >= LARGE)


def digest(files: Iterable[SourceFile]) -> Digest:
    """Return the digest of the tree: paths, modes and contents, nothing else."""
    return Digest.of(canonical.encode([file.as_json() for file in files]))


class SourceRecipe(Struct, frozen=True, kw_only=True):
    """The project's files, as `collect` found them below ``root``, in the working directory.

    Nothing depends on its ``caches``: they are what the user is told of.
    """

    root: Path
    files: tuple[SourceFile, ...]
    caches: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What the layer holds, for people."""
        count = sum(not file.is_folder for file in self.files)
        return f"source, {counted(count, 'file')}"

    @property
    def origin(self) -> Mapping[str, str]:
        """Nothing: where the project lies on the author's disk is nobody's concern."""
        return {}

    @property
    def inputs(self) -> Mapping[str, object]:
        """All that the bytes depend on: not the root's path."""
        return {"files": [file.as_json() for file in self.files]}

    @property
    def needs(self) -> tuple[Digest, ...]:
        """No fetched files."""
        return ()

    def write(self, archive: Archive, materials: Materials) -> None:  # noqa: ARG002 (the protocol's)
        """Write the files; raise `ProjectError` where one is not what it was when collected."""
        top = WORKDIR[1:]
        _add_folder(archive, top)
        for file in self.files:
            path = f"{top}/{file.path}"
            for slash in (at for at, char in enumerate(path) if char == "/"):
                parent = path[:slash]
                if parent not in archive:
                    _add_folder(archive, parent)
            if file.is_folder:
                _add_folder(archive, path)
                continue
            if file.digest is None:
                archive.add(
                    Entry(
                        path=path,
                        kind=Kind.SYMLINK,
                        mode=0o777,
                        uid=UID,
                        gid=GID,
                        target=file.target,
                    )
                )
                continue
            mode = 0o755 if file.executable else 0o644
            entry = Entry(path=path, mode=mode, uid=UID, gid=GID, size=file.size)
            archive.add(entry, _content(self.root, file))


def _add_folder(archive: Archive, path: str) -> None:
    archive.add(Entry(path=path, kind=Kind.DIRECTORY, mode=0o755, uid=UID, gid=GID))


def _read(root: Path, entry: os.DirEntry[str], path: str) -> tuple[SourceFile, str | None]:
    """Return the file, and why it looks like a secret where it does."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise ProjectError(f"the name {os.fsencode(path)!r} is not UTF-8") from None
    reason = secrets.by_name(path)
    if entry.is_dir(follow_symlinks=False):
        return SourceFile(path=path), None
    if entry.is_symlink():
        return SourceFile(path=path, target=_target(root, path)), reason
    if not entry.is_file(follow_symlinks=False):
        raise ProjectError(f"{path} is neither a file, a folder nor a link")
    with _open(root, path) as stream:
        found = os.fstat(stream.fileno())
        if found.st_size <= secrets.SIZE:
            data = stream.read(secrets.SIZE + 1)
            length, running = len(data), hashlib.sha256(data)
            reason = reason or secrets.by_content(path, data)
        else:
            length, running = 0, hashlib.sha256()
            search = secrets.Search(path)
            while chunk := stream.read(CHUNK):
                length += len(chunk)
                running.update(chunk)
                search.feed(chunk)
            reason = reason or search.reason
    if length != found.st_size:
        raise ProjectError(f"{path} changed while it was read")
    return SourceFile(
        path=path,
        executable=bool(found.st_mode & stat.S_IXUSR),
        size=length,
        digest=Digest(running.hexdigest()),
    ), reason


def _open(root: Path, path: str) -> BinaryIO:
    # A link that took the file's place since the folder was listed is not followed.
    try:
        return os.fdopen(os.open(root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        raise ProjectError(
            f"{path} is gone: it was there a moment ago", hint="run the command again"
        ) from None
    except OSError as fault:
        raise ProjectError(
            f"{path} cannot be read ({fault.strerror})", hint="name it in .dockerignore"
        ) from None


def _target(root: Path, path: str) -> str:
    """Return where a symlink points; raise `ProjectError` if that is outside the project."""
    target = str((root / path).readlink())
    # Both as it is written and as it resolves: the image has other things around it.
    inside = os.path.normpath(f"{path}/../{target}")
    outside = target.startswith("/") or inside.split("/")[0] == ".."
    real = Path(os.path.realpath(root / path))
    if outside or not real.is_relative_to(os.path.realpath(root)):
        raise ProjectError(f"the link {path} points out of the project, to {target}")
    try:
        target.encode("utf-8")
    except UnicodeEncodeError:
        raise ProjectError(f"the link {path} points to a name that is not UTF-8") from None
    return target


def _content(root: Path, file: SourceFile) -> Iterator[bytes]:
    """Yield a file's bytes, and make sure of them: an editor may be saving it right now."""
    assert file.digest is not None
    running = hashlib.sha256()
    left = file.size
    with _open(root, file.path) as stream:
        while chunk := stream.read(min(CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            running.update(chunk)
            yield chunk
    if left != 0 or running.hexdigest() != file.digest.hex:
        raise ProjectError(
            f"{file.path} changed while the image was built", hint="run the command again"
        )
