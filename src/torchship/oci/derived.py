"""What recipes gave: the key of a derived layer -> the layer, one small file each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import msgspec

from torchship import canonical
from torchship.digest import Digest
from torchship.errors import InvalidDigest
from torchship.layers.layer import GZIP, Layer
from torchship.oci import durable

_NAME = re.compile(r"([0-9a-f]{64})\.json")


class _Record(msgspec.Struct, kw_only=True, frozen=True):
    digest: str
    diff_id: str
    size: int
    unpacked_size: int
    media_type: str = GZIP
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class Derived:
    """The index of derived layers, in a folder of its own."""

    def __init__(self, folder: Path, *, temporary: Path) -> None:
        self._folder = folder
        self._temporary = temporary

    def __iter__(self) -> Iterator[Digest]:
        """Yield the keys that are there, in no order."""
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if match := _NAME.fullmatch(path.name):
                yield Digest(match[1])

    def get(self, key: Digest) -> Layer | None:
        """Return what a recipe of that key gave. A file that says nothing clear is no answer."""
        try:
            record = msgspec.json.decode(self._path(key).read_bytes(), type=_Record)
            return Layer(
                digest=Digest.parse(record.digest),
                diff_id=Digest.parse(record.diff_id),
                size=record.size,
                unpacked_size=record.unpacked_size,
                media_type=record.media_type,
                annotations=MappingProxyType(record.annotations),
            )
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, InvalidDigest):
            return None

    def set(self, key: Digest, layer: Layer) -> None:
        """Remember what a recipe gave."""
        document: Mapping[str, object] = {
            "digest": str(layer.digest),
            "diff_id": str(layer.diff_id),
            "size": layer.size,
            "unpacked_size": layer.unpacked_size,
            "media_type": layer.media_type,
            "annotations": dict(layer.annotations),
        }
        durable.write(self._path(key), canonical.encode(document), self._temporary)

    def touch(self, key: Digest) -> None:
        """Note that the layer was used just now, for `prune`."""
        with suppress(OSError):  # another user's store, or a read-only one, is not pruned by us
            os.utime(self._path(key))

    def used(self, key: Digest) -> datetime:
        """Return when the layer was last made or used (UTC)."""
        return datetime.fromtimestamp(self._path(key).stat().st_mtime, UTC)

    def forget(self, key: Digest) -> None:
        """Remove an entry."""
        with durable.writing(self._path(key)):
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: Digest) -> Path:
        return self._folder / f"{key.hex}.json"
