"""A layer, and the recipe that it is derived from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct, field

from torchship import canonical
from torchship.digest import Descriptor, Digest
from torchship.layers.archive import Archive

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
"""OCI image-spec, layer.md: the media type of a gzip-compressed tar."""

REVISION = 2
"""Raised whenever the code that derives any layer would give other bytes."""

ORIGIN = "dev.torchship.layer.origin"
TITLE = "org.opencontainers.image.title"
KEY = "dev.torchship.layer.key"


class Layer(Struct, frozen=True, kw_only=True):
    """A finished layer. Sizes are in bytes; ``digest`` is of the compressed form."""

    digest: Digest
    diff_id: Digest
    size: int
    unpacked_size: int
    media_type: str = GZIP
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def title(self) -> str:
        """What the layer holds, for people."""
        return self.annotations.get(TITLE, "")

    @property
    def descriptor(self) -> Descriptor:
        """What a manifest says of the layer."""
        return Descriptor(
            media_type=self.media_type,
            digest=self.digest,
            size=self.size,
            annotations=self.annotations,
        )


class Interpreter(Protocol):
    """A Python of exactly the image's version, to compile bytecode with."""

    def run(self, script: Path, arguments: Sequence[str]) -> None:
        """Run a self-contained script, isolated (``-I -S``); raise `EngineError` if it fails.

        ``arguments`` that are absolute paths name files that the script reads, or a file in
        an existing folder that it writes.
        """


def _unheard(line: str) -> None:
    """Tell nobody."""


class Materials(Struct, frozen=True, kw_only=True):
    """What a recipe is cooked from: files by their sha256, an interpreter, a scratch folder.

    ``say`` is told, in a line, what a recipe finds odd and goes on with.
    """

    files: Mapping[Digest, Path]
    scratch: Path
    interpreter: Interpreter | None = None
    say: Callable[[str], None] = _unheard


class Recipe(Protocol):
    """All that a layer is made of. Known, with its key, before a byte of the layer is.

    Recipes are frozen structs of plain values, so that a worker process can be sent one;
    they name files by digest, so that a layer which is known already needs no download.
    """

    @property
    def title(self) -> str:
        """What the layer will hold, for people: ``torch 2.13.0+cpu``."""

    @property
    def origin(self) -> Mapping[str, str]:
        """Further annotations for the manifest: where the content came from."""

    @property
    def inputs(self) -> Mapping[str, object]:
        """JSON value that names every input that the bytes depend on, by digest or value."""

    @property
    def needs(self) -> tuple[Digest, ...]:
        """The files that `write` will look for in `Materials.files`."""

    def write(self, archive: Archive, materials: Materials) -> None:
        """Write the entries, in a fixed order; the caller closes the archive."""


def key(recipe: Recipe) -> Digest:
    """Return the name under which the store remembers what a recipe gave."""
    kind = type(recipe).__name__
    return Digest.of(canonical.encode([kind, REVISION, recipe.inputs]))


def labels(recipe: Recipe) -> dict[str, str]:
    """Return the annotations that a derived layer carries in its manifest."""
    return {TITLE: recipe.title, KEY: str(key(recipe)), **recipe.origin}
