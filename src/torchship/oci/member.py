"""The members of a stranger's tar, before tarfile acts on what their headers claim.

tarfile reads an extended header into memory whatever its size, and gives a sparse file's holes
as zero bytes: a few bytes of an archive would fill the memory, or the disk.
"""

from __future__ import annotations

import tarfile

from torchship.errors import ManifestError

_LARGEST = 1 << 20
"""Bytes of a header that only extends the next one: names, times, attributes."""

_EXTENSIONS = frozenset(
    {
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
    }
)


class Member(tarfile.TarInfo):
    """A header that raises `ManifestError` for what no image tool writes; for ``tarinfo=``."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Member:
        """Read one header of 512 bytes."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in _EXTENSIONS and member.size > _LARGEST:
            raise ManifestError(f"the tar has an extended header of {member.size} bytes")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise ManifestError("the tar has a sparse file, which no image tool writes")
        return member
