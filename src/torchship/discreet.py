"""Values that hold secrets, and keep them out of tracebacks, logs and debuggers."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct


class Discreet(Struct, frozen=True, kw_only=True):
    """A value of which the fields named in ``secrets`` are never shown."""

    secrets: ClassVar[frozenset[str]]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        names = [name for name in self.__struct_fields__ if name not in self.secrets]
        return [(name, getattr(self, name)) for name in names]
