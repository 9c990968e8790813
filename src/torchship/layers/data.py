"""A data file, baked into the image as a layer of its own."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from torchship.digest import Digest, chunks
from torchship.errors import ProjectError
from torchship.layers.archive import Archive, Entry
from torchship.layers.layer import ORIGIN, Materials
from torchship.layers.layout import VENV, add_parents, owner
from torchship.project.lock import DataPin

_RESERVED = ("/dev", VENV, "/proc", "/sys")


class DataRecipe(Struct, frozen=True, kw_only=True):
    """One pinned data file at its absolute path in the image: mode 0644, its bytes as they are.

    A layer of its own, so that it is uploaded and pulled once, whatever happens to the code.
    """

    pin: DataPin

    @property
    def title(self) -> str:
        """What the layer holds, for people."""
        return f"data {self.pin.path}"

    @property
    def origin(self) -> Mapping[str, str]:
        """The file's name and digest."""
        return {ORIGIN: f"data:{self.pin.filename}@{self.pin.digest}"}

    @property
    def inputs(self) -> Mapping[str, object]:
        """All that the bytes depend on."""
        return {"path": self.pin.path, "size": self.pin.size, "digest": str(self.pin.digest)}

    @property
    def needs(self) -> tuple[Digest, ...]:
        """The file."""
        return (self.pin.digest,)

    def write(self, archive: Archive, materials: Materials) -> None:
        """Write the file below its parents; only what stands in the user's folders is theirs."""
        path = self.pin.path
        if not path.startswith("/") or any(
            path == top or path.startswith(f"{top}/") for top in _RESERVED
        ):
            raise ProjectError(
                f"data file {path!r} cannot stand there in an image",
                hint="use an absolute path such as /data/... or one below /workspace",
            )
        inside = path[1:]
        add_parents(archive, inside)
        uid = owner(inside)
        entry = Entry(path=inside, mode=0o644, uid=uid, gid=uid, size=self.pin.size)
        with materials.files[self.pin.digest].open("rb") as stream:
            archive.add(entry, chunks(stream, self.pin.size))
