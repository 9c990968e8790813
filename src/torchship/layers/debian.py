"""The base: Debian packages unpacked into one layer, without root and without their scripts.

What the maintainer scripts would have done and an image needs is done here, by
`torchship.layers.debian_files`: a script never runs, so that a base for another architecture
is made as easily as one for this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from torchship.amounts import counted
from torchship.digest import Digest
from torchship.errors import PackageError
from torchship.layers import debian_files
from torchship.layers.archive import Archive, Entry, Kind
from torchship.layers.layer import ORIGIN, Materials
from torchship.project.lock import PackagePin

if TYPE_CHECKING:
    from torchship.layers.deb import Deb, Member

_LEFT_OUT = re.compile(
    # Documentation (the licences stay), manual pages, translations, notes to Debian's tools.
    # A folder's path ends with a slash here.
    r"usr/share/doc/[^/]+/(?!copyright\Z)."
    r"|usr/share/(bug|doc-base|groff|gtk-doc|help|info|linda|lintian|locale|man|menu|omf)/"
    r"|var/cache/man/"
)
_LINK_LIMIT = 40  # as Linux: path_resolution(7)


class DebianRecipe(Struct, frozen=True, kw_only=True):
    """A base of Debian packages. ``suite`` (``bookworm``) only names it; the pins are it all.

    Files keep Debian's modes and owners, but for the set-id bits, which are dropped: nothing
    in an image of an experiment needs to gain rights.
    """

    suite: str
    packages: tuple[PackagePin, ...]

    @property
    def title(self) -> str:
        """What the layer holds, for people."""
        return f"debian:{self.suite}, {counted(len(self.packages), 'package')}"

    @property
    def origin(self) -> Mapping[str, str]:
        """The suite."""
        return {ORIGIN: f"debian:{self.suite}"}

    @property
    def inputs(self) -> Mapping[str, object]:
        """All that the bytes depend on: the packages by name, so that their order is no input."""
        return {
            "generated": debian_files.REVISION,
            "packages": [[pin.name, str(pin.digest)] for pin in _sorted(self.packages)],
        }

    @property
    def needs(self) -> tuple[Digest, ...]:
        """The .deb files."""
        return tuple(pin.digest for pin in _sorted(self.packages))

    def write(self, archive: Archive, materials: Materials) -> None:
        """Write the skeleton, each package in turn, and what their scripts would have made."""
        from torchship.layers.deb import open_deb  # imported here: most builds open no package

        tree = _Tree(archive)
        for path, mode in debian_files.DIRECTORIES:
            tree.add(Entry(path=path, kind=Kind.DIRECTORY, mode=mode), package="the skeleton")
        for path in debian_files.FIRST_LINKS:
            tree.link(path)
        installed = []
        for pin in _sorted(self.packages):
            label = f"{pin.name} {pin.version}"
            deb = open_deb(materials.files[pin.digest], label)
            installed.append(_unpack(deb, tree))
        for made, content in debian_files.generated(tree.kept, installed):
            if made.path not in archive:
                tree.add(made, content, package="the base")
        for path, target in debian_files.ALTERNATIVES:
            if path not in archive and target in archive:
                name = target.rpartition("/")[2]
                tree.add(_symlink(path, name), package="the base")


def _sorted(packages: tuple[PackagePin, ...]) -> list[PackagePin]:
    return sorted(packages, key=lambda pin: (pin.name, pin.architecture))


def _symlink(path: str, target: str) -> Entry:
    return Entry(path=path, kind=Kind.SYMLINK, mode=0o777, target=target)


def _unpack(deb: Deb, tree: _Tree) -> debian_files.Installed:
    """Add a package's members to the tree; return what dpkg's database says of it."""
    paths = []
    for member in deb.members():
        slash = "/" if member.kind is Kind.DIRECTORY else ""
        if not _LEFT_OUT.match(member.path + slash):
            paths.append(member.path)
            tree.add_member(member, deb.label)
    return debian_files.Installed(control=deb.control, md5sums=deb.md5sums, paths=tuple(paths))


class _Tree(Struct):
    """The layer's tree as it grows: symlinks are followed as dpkg, unpacking, would."""

    archive: Archive
    kept: dict[str, bytes] = field(default_factory=dict)
    _owners: dict[str, tuple[str, Kind]] = field(default_factory=dict)
    _links: dict[str, str] = field(default_factory=lambda: dict(debian_files.LINKS))

    def link(self, path: str) -> None:
        """Add one of the links that stand in every tree."""
        if path not in self._owners:
            self._owners[path] = ("the skeleton", Kind.SYMLINK)
            self.archive.add(_symlink(path, self._links[path]))

    def add_member(self, member: Member, package: str) -> None:
        kind, target = member.kind, member.target
        if kind is Kind.HARDLINK:
            target = self._resolve(target, package)
            if self._owners.get(target, ("", None))[1] is not Kind.FILE:
                raise PackageError(f"{package}: {member.path} is a link to no file of its own")
        keeps_bits = kind is Kind.DIRECTORY
        entry = Entry(
            path=member.path,
            kind=kind,
            mode=member.mode if keeps_bits else member.mode & 0o777,
            uid=member.uid,
            gid=member.gid,
            size=member.size,
            target=target,
        )
        self.add(entry, self._read(member), package=package)

    def add(self, entry: Entry, content: Iterable[bytes] = (), *, package: str) -> None:
        """Add an entry where the links of the tree lead; a directory that stands is kept."""
        path = self._resolve(entry.path, package)
        if path in self._links:
            self.link(path)
        owner = self._owners.get(path)
        if owner is not None:
            # dpkg: "a directory will never be replaced by a symlink", nor the other way round.
            if {owner[1], entry.kind} <= {Kind.DIRECTORY, Kind.SYMLINK} and (
                entry.kind is Kind.DIRECTORY or owner[1] is Kind.DIRECTORY
            ):
                return
            raise PackageError(f"{package} and {owner[0]} both hold {path}")
        self._check_parents(path, package)
        self._owners[path] = (package, entry.kind)
        if entry.kind is Kind.SYMLINK:
            self._links[path] = entry.target
        self.archive.add(entry if path == entry.path else replace(entry, path=path), content)

    def _check_parents(self, path: str, package: str) -> None:
        parent = path.rpartition("/")[0]
        while parent and parent not in self._owners:
            self._owners[parent] = (package, Kind.DIRECTORY)
            parent = parent.rpartition("/")[0]
        if parent and self._owners[parent][1] is not Kind.DIRECTORY:
            raise PackageError(f"{package}: {path} would stand inside {parent}, which is a file")

    def _resolve(self, path: str, package: str) -> str:
        """Return where a path really is: links among its parents are followed, in the root."""
        waiting = path.split("/")[::-1]
        real: list[str] = []
        followed = 0
        while waiting:
            part = waiting.pop()
            if part in ("", "."):
                continue
            if part == "..":
                real = real[:-1]
                continue
            real.append(part)
            here = "/".join(real)
            if waiting and here in self._links:
                followed += 1
                if followed > _LINK_LIMIT:
                    raise PackageError(f"{package}: {path} leads through a circle of links")
                self.link(here)
                target = self._links[here]
                real = [] if target.startswith("/") else real[:-1]
                waiting.extend(target.split("/")[::-1])
        if not real:
            raise PackageError(f"{package}: {path} leads to the root itself")
        return "/".join(real)

    def _read(self, member: Member) -> Iterable[bytes]:
        if not debian_files.is_kept(member.path) or member.size > debian_files.KEPT_SIZE:
            return member.content
        data = self.kept[member.path] = b"".join(member.content)
        return (data,)
