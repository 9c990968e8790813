"""Writing the entries of a layer below one folder, and never outside it.

Every path is opened one part at a time, relative to a descriptor of its folder, and no symlink
is followed: neither one of this layer nor one that somebody else puts there meanwhile.
Source: OCI image-spec v1.1, layer.md ("Applying Changesets", "Whiteouts"), and the kernel's
Documentation/filesystems/overlayfs.rst ("whiteouts and opaque directories").
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from pathlib import Path

from torchship.engines.uncompress import Uncompressed
from torchship.errors import LayerError
from torchship.layers import tarstream
from torchship.layers.tarstream import BLOCK, Member

MAX_BYTES = 64 << 30
"""A layer that unpacks to more is refused: torch with all of CUDA is 8 GiB in 29 layers."""

MAX_ENTRIES = 2_000_000
MAX_DEPTH = 128

_OPEN_FOLDERS = 64  # of one layer: several are unpacked at once, and 1024 descriptors are usual
_WHITEOUT, _OPAQUE, _RESERVED = b".wh.", b".wh..wh..opq", b".wh..wh."
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Parts = tuple[bytes, ...]


class Folder:
    """Takes one layer's entries. All that it writes belongs to the caller, without setuid bits.

    Owners, times and extended attributes are left out. Raises `LayerError` for an entry that
    breaks a rule, `OSError` where the file system fails.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: OrderedDict[Parts, int] = OrderedDict()
        self._modes: dict[Parts, int] = {}
        self._whiteouts: set[Parts] = set()
        self._opaque: set[Parts] = set()
        self._entries = 0
        self._bytes = 0

    def __enter__(self) -> Folder:
        self._open[()] = os.open(self._root, _FOLDER_FLAGS)
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def add(self, member: Member, source: Uncompressed) -> None:
        """Write one entry; its bytes are read from ``source``."""
        self._count(member)
        parts = _parts(member.path)
        if not parts:
            if member.kind != tarstream.DIRECTORY:
                raise LayerError(f"{_text(member.path)} would replace the layer's root")
            self._modes[()] = member.mode
            return
        parent, name = parts[:-1], parts[-1]
        if name.startswith(_WHITEOUT):
            self._white_out(parent, name)
            source.skip(member.size + -member.size % BLOCK)
        elif member.kind == tarstream.DIRECTORY:
            self._make_folder(parts)
            self._modes[parts] = member.mode
        elif member.kind == tarstream.REGULAR:
            self._make_file(parent, name, member, source)
        elif member.kind == tarstream.SYMLINK:
            if not member.link or b"\0" in member.link:
                raise LayerError(f"{_text(member.path)} is a symlink to nothing")
            os.symlink(member.link, name, dir_fd=self._vacant(parent, name, member))
        elif member.kind == tarstream.HARDLINK:
            self._link(parent, name, member)
        elif member.kind == tarstream.FIFO:
            os.mkfifo(name, member.mode & 0o777, dir_fd=self._vacant(parent, name, member))
        elif member.kind == tarstream.CHARACTER and member.device == (0, 0):
            self._make_folder(parent)
            self._whiteouts.add(parts)  # overlayfs's own form of a whiteout
        elif member.kind in (tarstream.CHARACTER, tarstream.BLOCK_DEVICE):
            raise LayerError(f"{_text(member.path)} is a device node, which no image needs")
        else:
            raise LayerError(f"{_text(member.path)} is of an unknown kind {member.kind!r}")

    def finish(self) -> None:
        """Write whiteouts, then the modes of folders, which may forbid writing."""
        for parts in sorted(self._whiteouts):
            parent = self._folder(parts[:-1])
            try:
                # Linux lets everybody make this one device node since 5.8
                os.mknod(parts[-1], stat.S_IFCHR, 0, dir_fd=parent)
            except FileExistsError:
                if stat.S_ISDIR(os.lstat(parts[-1], dir_fd=parent).st_mode):
                    self._opaque.add(parts)  # only what is below it in older layers is hidden
        for parts in sorted(self._opaque):
            os.setxattr(self._folder(parts), "user.overlay.opaque", b"y")
        for parts, mode in sorted(self._modes.items(), reverse=True):
            os.fchmod(self._folder(parts), mode & 0o1777)

    def _count(self, member: Member) -> None:
        self._entries += 1
        self._bytes += member.size
        if self._entries > MAX_ENTRIES:
            raise LayerError(f"the layer has more than {MAX_ENTRIES} entries")
        if self._bytes > MAX_BYTES:
            raise LayerError(f"the layer unpacks to more than {MAX_BYTES >> 30} GiB")

    def _white_out(self, parent: Parts, name: bytes) -> None:
        if name == _OPAQUE:
            self._make_folder(parent)
            self._opaque.add(parent)
        elif not name.startswith(_RESERVED):
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in (b"", b".", b".."):
                raise LayerError(f"{_text(name)} is a whiteout of nothing")
            self._make_folder(parent)
            self._whiteouts.add((*parent, hidden))

    def _make_file(self, parent: Parts, name: bytes, member: Member, source: Uncompressed) -> None:
        try:
            descriptor = os.open(name, _FILE_FLAGS, 0o600, dir_fd=self._make_folder(parent))
        except FileExistsError:
            into = self._vacant(parent, name, member)
            descriptor = os.open(name, _FILE_FLAGS, 0o600, dir_fd=into)
        try:
            left = member.size
            for piece in source.pieces(member.size):
                left -= len(piece)
                while piece:
                    piece = piece[os.write(descriptor, piece) :]
            if left:
                raise LayerError(f"{_text(member.path)} ends too early")
            os.fchmod(descriptor, member.mode & 0o777)
        finally:
            os.close(descriptor)
        source.skip(-member.size % BLOCK)

    def _link(self, parent: Parts, name: bytes, member: Member) -> None:
        target = _parts(member.link)
        if not target or target == (*parent, name):
            raise LayerError(f"{_text(member.path)} is a hard link to itself or to nothing")
        try:
            found = os.lstat(target[-1], dir_fd=self._folder(target[:-1]))
        except FileNotFoundError:
            found = None
        if found is None or stat.S_ISDIR(found.st_mode):
            link = _text(member.link)
            raise LayerError(f"{_text(member.path)} is a hard link to {link}, which is no file")
        # Two folders at once: opening the way to one may close the other
        folder = os.dup(self._folder(target[:-1]))
        try:
            into = self._vacant(parent, name, member)
            os.link(target[-1], name, src_dir_fd=folder, dst_dir_fd=into, follow_symlinks=False)
        finally:
            os.close(folder)

    def _vacant(self, parent: Parts, name: bytes, member: Member) -> int:
        """Return the parent's descriptor, with nothing of that name in it."""
        descriptor = self._make_folder(parent)
        try:
            os.unlink(name, dir_fd=descriptor)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            raise LayerError(f"{_text(member.path)} would replace a folder") from None
        return descriptor

    def _make_folder(self, parts: Parts) -> int:
        """Return a folder's descriptor; make it, and what is above it, where it is missing."""
        try:
            return self._folder(parts)
        except FileNotFoundError:
            pass
        if len(parts) > MAX_DEPTH:
            raise LayerError(f"the layer has folders more than {MAX_DEPTH} deep")
        parent = self._make_folder(parts[:-1])
        os.mkdir(parts[-1], 0o755, dir_fd=parent)
        self._modes[parts] = 0o755  # whatever the umask took from it
        return self._folder(parts)

    def _folder(self, parts: Parts) -> int:
        descriptor = self._open.get(parts)
        if descriptor is not None:
            self._open.move_to_end(parts)
            return descriptor
        if len(parts) > MAX_DEPTH:
            raise LayerError(f"the layer has folders more than {MAX_DEPTH} deep")
        parent = self._folder(parts[:-1])
        try:
            descriptor = os.open(parts[-1], _FOLDER_FLAGS, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            path = _text(b"/".join(parts))
            raise LayerError(f"the layer would write through {path}, which is no folder") from None
        self._open[parts] = descriptor
        if len(self._open) > _OPEN_FOLDERS:
            self._close_oldest()
        return descriptor

    def _close_oldest(self) -> None:
        for parts in list(self._open)[: _OPEN_FOLDERS // 2]:
            if parts:
                os.close(self._open.pop(parts))


def _parts(path: bytes) -> Parts:
    """Split a path of the archive; ``./a//b/`` is ``a/b``, as every unpacker takes it."""
    if path.startswith(b"/"):
        raise LayerError(f"{_text(path)} is an absolute path")
    parts = tuple(part for part in path.split(b"/") if part not in (b"", b"."))
    if b".." in parts or b"\0" in path:
        raise LayerError(f"{_text(path)} would leave the layer's folder")
    return parts


def _text(path: bytes) -> str:
    """Write a path for people: control characters cannot play with their terminal."""
    return repr(path.decode("utf-8", "backslashreplace"))[1:-1]
