"""The run user's name, on a published base that knows only its own users.

The image runs as a number, which needs no name; programs ask for it all the same: `whoami`, ssh,
git, `getpass.getuser`. The base's own files are kept, and the user is added at their end.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from torchship.digest import Digest
from torchship.layers import debian_files
from torchship.layers.archive import Archive, Entry, Kind
from torchship.layers.layer import Materials
from torchship.layers.layout import GID, UID


class UsersRecipe(Struct, frozen=True, kw_only=True):
    """``/etc/passwd`` and ``/etc/group`` of a base, by its manifest's digest, and the run user.

    The contents are what that base has: they follow from ``base``, and are read only to `write`.
    None stands for a file that is none, such as a link, and stays as it is; where a base has
    nothing there, the users that every Debian has are written.
    """

    base: Digest
    passwd: bytes | None = None
    group: bytes | None = None

    @property
    def title(self) -> str:
        """What the layer holds, for people."""
        return "the run user's name"

    @property
    def origin(self) -> Mapping[str, str]:
        """Nothing but the base, which the image names."""
        return {}

    @property
    def inputs(self) -> Mapping[str, object]:
        """All that the bytes depend on."""
        return {"base": str(self.base), "generated": debian_files.REVISION}

    @property
    def needs(self) -> tuple[Digest, ...]:
        """No fetched files."""
        return ()

    def write(self, archive: Archive, materials: Materials) -> None:  # noqa: ARG002 (the protocol's)
        """Write both files, each as it is where somebody has the run user's number already."""
        archive.add(Entry(path="etc", kind=Kind.DIRECTORY, mode=0o755))
        for name, found, usual, row, number in (
            ("group", self.group, debian_files.static_groups, debian_files.GROUP_ROW, GID),
            ("passwd", self.passwd, debian_files.static_users, debian_files.USER_ROW, UID),
        ):
            if found is None:
                continue
            content = found or usual()
            whole = content if _has(content, number) else _ended(content) + row
            archive.add(Entry(path=f"etc/{name}", mode=0o644, size=len(whole)), [whole])


def _has(content: bytes, number: int) -> bool:
    return any(line.split(b":")[2:3] == [b"%d" % number] for line in content.splitlines())


def _ended(content: bytes) -> bytes:
    return content if not content or content.endswith(b"\n") else content + b"\n"
