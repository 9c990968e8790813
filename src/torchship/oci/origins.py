"""Which repositories have an image, or parts of it: where the store can get what it lacks.

An image made of published layers stands in the store without them. What was pulled, pushed or
built upon is noted, so that a later run or save finds the missing blobs again. A note is a
hint: what comes from there is verified like everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from torchship.digest import Digest
from torchship.errors import InvalidReference
from torchship.oci import durable
from torchship.oci.reference import Reference

_MOST = 8  # repositories of one image: the last ones are the likeliest to be there still


class Origins:
    """The notes of one store, one small file for each manifest or index, in a folder."""

    def __init__(self, folder: Path, *, temporary: Path) -> None:
        self._folder = folder
        self._temporary = temporary

    def __iter__(self) -> Iterator[Path]:
        """Yield the files, each named after the digest that it is about."""
        yield from self._folder.iterdir() if self._folder.is_dir() else ()

    def get(self, digest: Digest) -> tuple[Reference, ...]:
        """Return the repositories noted for a manifest, the last noted first."""
        try:
            lines = self._path(digest).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return ()
        return tuple(_parsed(lines))

    def add(self, digest: Digest, references: Iterable[Reference]) -> None:
        """Note where a manifest, or parts of its image, can be had."""
        known = [reference.name for reference in self.get(digest)]
        names = list(dict.fromkeys([*(each.name for each in references), *known]))[:_MOST]
        if names == known:
            return
        with durable.writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{name}\n" for name in names)
        durable.write(self._path(digest), text.encode(), self._temporary)

    def _path(self, digest: Digest) -> Path:
        return self._folder / digest.hex


def _parsed(lines: Iterable[str]) -> Iterator[Reference]:
    for line in lines:
        try:
            yield Reference.parse(line)
        except InvalidReference:  # damaged: a note less
            continue
