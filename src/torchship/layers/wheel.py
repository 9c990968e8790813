"""Wheels become a layer: the deflate stream of each larger file is spliced in as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import deflate
from msgspec import Struct

from torchship.digest import Digest
from torchship.errors import HostileInput, WheelError
from torchship.layers.archive import Archive, Entry
from torchship.layers.layer import ORIGIN, Materials
from torchship.project.lock import WheelPin
from torchship.project.project import minor

if TYPE_CHECKING:
    from torchship.layers.installation import Placed
    from torchship.layers.wheelzip import Member, WheelZip

_NAMED = 4  # wheels that the title of a shared layer names


class WheelsRecipe(Struct, frozen=True, kw_only=True):
    """One or more wheels, unpacked to what ``pip install --no-deps`` of each makes of them.

    The layer depends on the wheels, on ``python``'s minor version (the name of site-packages)
    and on ``prune``, gitignore patterns on paths in site-packages; on nothing else. Wheels are
    laid out by normalised name, whatever their order here: where two hold the same path, as
    parts of a namespace do, the later name's file is the one that stays.
    """

    wheels: tuple[WheelPin, ...]
    python: str
    prune: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What the layer holds, for people."""
        first = ", ".join(f"{pin.name} {pin.version}" for pin in self._sorted[:_NAMED])
        rest = len(self.wheels) - _NAMED
        return f"{first} and {rest} more" if rest > 0 else first

    @property
    def origin(self) -> Mapping[str, str]:
        """The wheels' file names and digests."""
        return {ORIGIN: " ".join(f"wheel:{pin.filename}@{pin.digest}" for pin in self._sorted)}

    @property
    def inputs(self) -> Mapping[str, object]:
        """All that the bytes depend on."""
        return {
            "wheels": [[pin.filename, str(pin.digest)] for pin in self._sorted],
            "python": minor(self.python),
            "prune": list(self.prune),
        }

    @property
    def needs(self) -> tuple[Digest, ...]:
        """The wheels."""
        return tuple(pin.digest for pin in self._sorted)

    @property
    def _sorted(self) -> list[WheelPin]:
        return sorted(self.wheels, key=lambda pin: (pin.name, pin.filename))

    def write(self, archive: Archive, materials: Materials) -> None:
        """Write the wheels' files, in each wheel's own order."""
        # Imported here: most commands write no wheel.
        from torchship.layers.installation import place
        from torchship.layers.prune import matcher
        from torchship.layers.wheelzip import WheelZip

        pruned = matcher(self.prune)
        files: dict[str, tuple[WheelZip, Placed]] = {}
        with ExitStack() as stack:
            for pin in self._sorted:
                wheel = WheelZip(materials.files[pin.digest], pin.filename)
                stack.enter_context(wheel)
                for placed in place(wheel, self.python, pruned, materials.say):
                    files.pop(placed.path, None)
                    files[placed.path] = (wheel, placed)
            for wheel, placed in files.values():
                _write(archive, wheel, placed)


def _write(archive: Archive, wheel: WheelZip, placed: Placed) -> None:
    member = placed.member
    if member is None:
        entry = Entry(path=placed.path, mode=placed.mode, size=len(placed.content))
        archive.add(entry, [placed.content])
        return
    entry = Entry(path=placed.path, mode=placed.mode, size=member.size)
    try:
        if member.deflated:
            archive.splice(entry, wheel.pieces(member), member.crc32)
        else:
            archive.add(entry, _stored(wheel, member))
    except WheelError:
        raise
    except HostileInput as error:
        raise wheel.error(f"is refused: {error}", member.name) from None


def _stored(wheel: WheelZip, member: Member) -> Iterator[bytes]:
    running = 0
    for piece in wheel.pieces(member):
        running = deflate.crc32(piece, running)
        yield piece
    if running != member.crc32:
        raise wheel.error(f"has crc32 {running:08x} and states {member.crc32:08x}", member.name)
