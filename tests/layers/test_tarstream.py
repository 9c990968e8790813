"""Tar archives read as streams, whoever wrote them."""

import io
import tarfile

import pytest

from torchship.errors import HostileInput
from torchship.layers.tarstream import BLOCK, members


def archive_of(*infos, format=tarfile.GNU_FORMAT):
    """Return what Python's tarfile writes of these entries, each filled with zeros."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


def entry(name, **attributes):
    """Return a tarfile entry."""
    info = tarfile.TarInfo(name)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def read(data):
    """Return the entries of an archive, passing over their contents."""
    source = io.BytesIO(data)
    found = []
    for member in members(source):
        found.append(member)
        source.seek(member.size + -member.size % BLOCK, io.SEEK_CUR)
    return found


def header_with(at, value):
    """Return an archive of one file whose header has other bytes, and a checksum that fits."""
    header = bytearray(archive_of(entry("a"))[:BLOCK])
    header[at : at + len(value)] = value
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32)
    return bytes(header) + bytes(2 * BLOCK)


@pytest.mark.parametrize(
    "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=str
)
def test_entries_are_those_that_tarfile_wrote(format):
    """Every format gives names of any length, modes, owners, sizes and targets back."""
    long = f"{'d' * 60}/{'f' * 80}"
    data = archive_of(
        entry("d", type=tarfile.DIRTYPE, mode=0o1777),
        entry(long, size=1000, mode=0o4755, uid=1000, gid=100),
        entry("l", type=tarfile.SYMTYPE, linkname="t" * 100),
        entry("h", type=tarfile.LNKTYPE, linkname="d"),
        entry("n", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        format=format,
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        theirs = [(i.name, i.type, i.mode, i.uid, i.gid, i.size, i.linkname) for i in tar]
    ours = [
        (m.path.decode().rstrip("/"), m.kind, m.mode, m.uid, m.gid, m.size, m.link.decode())
        for m in read(data)
    ]
    assert ours == theirs
    assert [member.device for member in read(data)][-2:] == [(0, 0), (1, 3)]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=str)
def test_what_no_plain_header_holds_comes_from_extended_ones(format):
    """Names and targets of over 100 bytes and owners of over 21 bits come back whole."""
    data = archive_of(
        entry("n" * 300, uid=3_000_000),
        entry("l", type=tarfile.SYMTYPE, linkname="ü" * 200),
        format=format,
    )
    first, second = read(data)
    assert (first.path, first.uid) == (b"n" * 300, 3_000_000)
    assert second.link.decode() == "ü" * 200


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (124, b"\xff" * 12, "a number is"),  # -1 in base 256
        (124, b"-0000000017\0", "a number is"),
        (124, b"0000_000017\0", "a number is"),
        (124, b"00000000089\0", "a number is"),
        (156, b"S", "sparse"),
        (124, b"\x80" + b"\x7f" * 11, "ends too early"),
    ],
)
def test_a_header_that_lies_is_refused(at, value, message):
    """Numbers that are none, sparse files and sizes that nothing has are errors."""
    with pytest.raises(HostileInput, match=message):
        source = io.BytesIO(header_with(at, value))
        for member in members(source):
            assert member.size > 1 << 80
            source.read()


def test_a_changed_header_is_noticed():
    """Any changed byte of a header breaks its checksum."""
    data = bytearray(archive_of(entry("a")))
    data[3] ^= 1
    with pytest.raises(HostileInput, match="checksum"):
        read(bytes(data))


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1023])
def test_an_archive_that_is_cut_short_is_no_smaller_archive(size):
    """An archive ends with a record of zeros, or it is refused."""
    with pytest.raises(HostileInput, match="too early"):
        read(archive_of(entry("a", size=512))[:size])
