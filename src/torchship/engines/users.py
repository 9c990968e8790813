"""Which user an image's program runs as.

Source: OCI image-spec v1.1, config.md, ``User``: "user, uid, user:group, uid:gid, uid:group,
user:gid"; names are those of ``/etc/passwd`` and ``/etc/group`` inside the image.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from torchship.errors import EngineError

_LIMIT = 1 << 20  # bytes of a passwd file
ARCHIVE_LIMIT = 2 * _LIMIT
"""Bytes of a tar of such a file."""

_HIGHEST = (1 << 31) - 1


class User(Struct, frozen=True, kw_only=True):
    """Numbers inside the container, and the home folder."""

    uid: int
    gid: int
    home: str


def resolve(text: str, layers: Sequence[Path]) -> User:
    """Look an image's ``User`` up in its unpacked layers, the lowest first.

    An empty one is root, as everywhere. Raises `EngineError` for a name that is unknown.
    """
    return look_up(text, lambda name: _topmost(layers, name))


def look_up(text: str, read: Callable[[str], bytes]) -> User:
    """Look an image's ``User`` up; ``read`` gives the content of a file of its ``/etc``."""
    name, _, group = (text or "0").partition(":")
    passwd = _rows(read("passwd"), 6)
    row = next((row for row in passwd if name in (row[0], row[2])), None)
    uid = _number(name) if row is None else _number(row[2])
    if uid is None:
        raise EngineError(
            f"the image runs as user {name!r}, which its /etc/passwd does not have",
            hint="give the user as a number in the image, or run it with Docker",
        )
    gid = _number(row[3]) if row is not None else 0
    if group:
        named = next((row for row in _rows(read("group"), 3) if row[0] == group), None)
        gid = _number(group) if named is None else _number(named[2])
    if gid is None:
        raise EngineError(f"the image runs as group {group!r}, which its /etc/group does not have")
    return User(uid=uid, gid=gid, home=row[5] if row is not None and row[5] else "/")


def from_tar(archive: bytes) -> bytes:
    """Return the first file of a tar that an engine gave; nothing where there is none."""
    if not archive or len(archive) > ARCHIVE_LIMIT:
        return b""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            member = tar.next()
            stream = tar.extractfile(member) if member is not None and member.isfile() else None
            return stream.read(_LIMIT) if stream is not None else b""
    except tarfile.TarError:
        return b""


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 11 and int(text) <= _HIGHEST else None


def _rows(content: bytes, columns: int) -> list[list[str]]:
    rows = [line.split(":") for line in content.decode("utf-8", "replace").splitlines()]
    return [row for row in rows if len(row) >= columns]


def _topmost(layers: Sequence[Path], name: str) -> bytes:
    for layer in reversed(layers):
        content = _read(layer, ("etc", name))
        if content is not None:
            return content
    return b""


def _read(root: Path, parts: tuple[str, ...]) -> bytes | None:
    """Read a file of a layer, through no symlink: those of a hostile layer lead to the host."""
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(parts[-1], flags, dir_fd=folder), "rb") as stream:
            return stream.read(_LIMIT)
    except OSError:
        return None  # not there, a link, a whiteout: the layer below has it, or none
    finally:
        os.close(folder)
