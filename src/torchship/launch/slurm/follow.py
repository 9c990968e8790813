"""What a step prints, passed on as its files grow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from torchship.engines.relay import write_all

_PIECE = 1 << 20


class Tail:
    """Copies what a file on a shared file system got since the last look.

    The file is opened for each look: that is when NFS asks the server anew.
    """

    def __init__(self, source: Path, to: Sequence[int]) -> None:
        self._source = source
        self._to = to
        self._place = 0
        self.last = b""

    def look(self) -> bool:
        """Copy what is new; tell whether there was anything."""
        found = False
        with self._source.open("rb") as file:
            file.seek(self._place)
            while piece := file.read(_PIECE):
                found = True
                self._place += len(piece)
                self.last = (self.last + piece)[-4096:]
                for descriptor in self._to:
                    write_all(descriptor, piece)
        return found


class Log:
    """The file that gets everything that a step prints."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("wb", buffering=0) if path else None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file's descriptor, where there is one."""
        return (self._file.fileno(),) if self._file else ()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file:
            self._file.close()
