"""Tar archives read as streams, whoever wrote them."""

import io
import tarfile
import time

import pytest

from torchship.errors import HostileInput
from torchship.layers import tarstream
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


def extension(payload, kind=b"x"):
    """Return an extended header of that payload, alone."""
    header = bytearray(archive_of(entry("x", size=len(payload)))[:BLOCK])
    header[156:157] = kind
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32)
    return bytes(header) + payload + bytes(-len(payload) % BLOCK)


def test_a_header_of_many_records_is_read_in_one_pass():
    """A pax header as long as any may be, of the shortest records, takes no second."""
    payload = b"6 a=b\n" * ((1 << 20) // 6 - 4) + b"12 path=new\n"
    before = time.process_time()
    (member,) = read(extension(payload) + archive_of(entry("old")))
    assert member.path == b"new"
    assert time.process_time() - before < 2


@pytest.mark.parametrize(
    "payload",
    [
        b"5 a=b\n",
        b"7 a=b\n",
        b"0 a=b\n",
        b"6  a=b\n",
        b"-6 a=b\n",
        b"6 abc\n",
        b"a=b\n",
        b"=\n",
        b"6 a=bc6 a=b\n",
        b"99999999999 a=b\n",
        b"6 a=b\n6 a=b",
    ],
)
def test_a_damaged_pax_header_is_refused(payload):
    """Each record's length must be its own, and leads to a newline."""
    with pytest.raises(HostileInput, match="damaged pax header"):
        read(extension(payload) + archive_of(entry("a")))


def test_a_member_has_few_extended_headers():
    """One of each kind is usual; a row of hundreds is there to keep its reader busy."""
    usual = (
        extension(b"comment", b"g")
        + extension(b"9 uid=77\n")
        + extension(b"long\0", b"L")
        + extension(b"to\0", b"K")
    )
    first, second = read(
        2 * (usual + archive_of(entry("a", type=tarfile.SYMTYPE))[:BLOCK]) + bytes(BLOCK)
    )
    assert (first.path, first.uid, first.link) == (b"long", 77, b"to")
    assert first == second
    for kind in (b"x", b"g", b"L", b"K"):
        with pytest.raises(HostileInput, match="belong to no member"):
            read(extension(b"", kind) * 9 + archive_of(entry("a")))


def test_extended_headers_have_a_limit_in_sum(monkeypatch):
    """They count among an archive's headers, and what they hold counts, too."""
    pair = extension(b"9 uid=77\n") + archive_of(entry("a"))[:BLOCK]
    data = pair * 10 + bytes(BLOCK)
    assert len(read(data)) == 10
    monkeypatch.setattr(tarstream, "_MAX_EXTENDED_SUM", 89)
    with pytest.raises(HostileInput, match="more than 89 bytes"):
        read(data)
    monkeypatch.undo()
    monkeypatch.setattr(tarstream, "_MAX_HEADERS", 20)
    with pytest.raises(HostileInput, match="more than 20 headers"):
        read(data)
