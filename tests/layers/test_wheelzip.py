"""Zip files that lie: each is refused, with the wheel, the member and the fault named."""

from __future__ import annotations

import gzip
import io
import random
import stat
import struct
import zipfile
import zlib

import pytest
from tests.layers.wheels import NAME, File, deflated, members, pinned, zipped

from torchship.errors import WheelError
from torchship.layers.archive import Archive
from torchship.layers.layer import Materials
from torchship.layers.wheel import WheelsRecipe
from torchship.layers.wheelzip import SMALL, WheelZip

TEXT = b"print('hello')\n" * 50


def _layer(tmp_path, data: bytes, filename: str = NAME) -> bytes:
    pin, files = pinned(tmp_path, data, filename)
    sink = io.BytesIO()
    archive = Archive(sink)
    recipe = WheelsRecipe(wheels=(pin,), python="3.11")
    recipe.write(archive, Materials(files=files, scratch=tmp_path))
    archive.close()
    return sink.getvalue()


def _refused(tmp_path, data: bytes, match: str) -> WheelError:
    with pytest.raises(WheelError, match=match) as caught:
        _layer(tmp_path, data)
    assert NAME in caught.value.message
    assert caught.value.hint
    return caught.value


def _descriptor(content: bytes, *, signature: bytes = b"PK\x07\x08", wide: bool = False) -> bytes:
    form = "<I2Q" if wide else "<3I"
    sums = struct.pack(form, zlib.crc32(content), len(deflated(content)), len(content))
    return signature + sums


def _wide(*values: int) -> bytes:
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


FULL = 0xFFFFFFFF
UNSAID = {"crc32": 0, "compressed": 0, "size": 0}
SIZES = (len(TEXT), len(deflated(TEXT)))

HONEST = {
    "deflated": [File(name="a.py", content=TEXT)],
    "stored": [File(name="a.py", content=TEXT, method=0)],
    "empty": [File(name="a.py"), File(name="b.py", method=0)],
    "directory": [File(name="d/", method=0, mode=0o40755), File(name="d/a.py", content=TEXT)],
    "directory with a file's mode": [File(name="d/", mode=0o100644), File(name="d/a.py")],
    "no mode": [File(name="a.py", content=TEXT, mode=0)],
    "utf-8 name": [File(name="모듈.py", content=TEXT, flags=1 << 11)],
    "descriptor": [
        File(name="a.py", content=TEXT, flags=8, local=UNSAID, descriptor=_descriptor(TEXT))
    ],
    "descriptor without signature": [
        File(
            name="a.py",
            content=TEXT,
            flags=8,
            local=UNSAID,
            descriptor=_descriptor(TEXT, signature=b""),
        )
    ],
    "wide descriptor": [
        File(
            name="a.py",
            content=TEXT,
            flags=8,
            local=UNSAID,
            descriptor=_descriptor(TEXT, wide=True),
        )
    ],
    "zip64 sizes": [
        File(
            name="a.py",
            content=TEXT,
            local={"compressed": FULL, "size": FULL, "extra": _wide(*SIZES)},
            central={"compressed": FULL, "size": FULL, "extra": _wide(*SIZES)},
        )
    ],
    "unknown extra": [File(name="a.py", content=TEXT, local={"extra": b"UT\x01\x00\x01"})],
}


@pytest.mark.parametrize("files", HONEST.values(), ids=HONEST.keys())
def test_what_zip_allows_is_taken(tmp_path, files):
    """Every form of member that the format has and wheels may use goes into a layer."""
    assert _layer(tmp_path, zipped(*members(*files)))


def test_the_ends_of_zip_are_taken(tmp_path):
    """An archive comment and a zip64 end that agrees are no faults."""
    files = members(File(name="a.py", content=TEXT))
    plain = _layer(tmp_path, zipped(*files))
    assert _layer(tmp_path, zipped(*files, comment=b"made by hand")) == plain
    assert _layer(tmp_path, zipped(*files, end64={})) == plain
    full = {"here": 0xFFFF, "entries": 0xFFFF, "size": FULL, "offset": FULL}
    assert _layer(tmp_path, zipped(*files, end=full, end64={})) == plain


LIES = {
    "crc": ("crc32", File(name="a.py", content=TEXT, local={"crc32": 1}, central={"crc32": 1})),
    "crc of stored": (
        "crc32",
        File(name="a.py", content=TEXT, method=0, local={"crc32": 1}, central={"crc32": 1}),
    ),
    "size too small": (
        "inflates to more",
        File(name="a.py", content=TEXT, local={"size": 5}, central={"size": 5}),
    ),
    "size too large": (
        "inflates to 750 bytes and states 751",
        File(name="a.py", content=TEXT, local={"size": 751}, central={"size": 751}),
    ),
    "two sizes of stored": (
        "two sizes",
        File(name="a.py", content=TEXT, method=0, local={"size": 5}, central={"size": 5}),
    ),
    "stream cut": ("ends too early", File(name="a.py", content=TEXT, stream=deflated(TEXT)[:-1])),
    "stream goes on": (
        "follow the end",
        File(name="a.py", content=TEXT, stream=deflated(TEXT) + b"more"),
    ),
    "stream is none": ("damaged", File(name="a.py", content=TEXT, stream=b"\xff" * 20)),
    "local crc": ("local header", File(name="a.py", content=TEXT, local={"crc32": 1})),
    "local size": ("local header", File(name="a.py", content=TEXT, local={"size": 1})),
    "local name": ("another name", File(name="a.py", content=TEXT, local={"name": b"b.py"})),
    "local long name": ("another name", File(name="a.py", content=TEXT, local={"name": b"a.py2"})),
    "local method": ("another method", File(name="a.py", content=TEXT, local={"method": 0})),
    "local flags": ("other flags", File(name="a.py", content=TEXT, local={"flags": 8})),
    "encrypted": ("encrypted", File(name="a.py", content=TEXT, flags=1)),
    "strongly encrypted": ("flags", File(name="a.py", content=TEXT, flags=1 << 6)),
    "masked": ("flags", File(name="a.py", content=TEXT, flags=1 << 13)),
    "bzip2": ("method 12", File(name="a.py", content=TEXT, method=12)),
    "symlink": ("symlink", File(name="a.py", content=b"/etc/passwd", mode=0o120777)),
    "symlink with a slash": ("symlink", File(name="a/", mode=0o120777)),
    "device": ("neither", File(name="a.py", mode=stat.S_IFCHR | 0o666)),
    "folder with bytes": ("bytes in it", File(name="a/", content=TEXT, mode=0)),
    "folder and file": ("bytes in it", File(name="a/", content=TEXT, mode=0o100644)),
    "absolute": ("plain relative path", File(name="/etc/passwd", content=TEXT)),
    "parent": ("plain relative path", File(name="a/../../../b", content=TEXT)),
    "leading parent": ("plain relative path", File(name="../b", content=TEXT)),
    "dot": ("plain relative path", File(name="./b", content=TEXT)),
    "empty part": ("plain relative path", File(name="a//b", content=TEXT)),
    "no name": ("plain relative path", File(name="", content=TEXT)),
    "nul": ("plain relative path", File(name="a.py\0.txt", content=TEXT)),
    "backslash": ("backslash", File(name="..\\b", content=TEXT)),
    "long part": ("255 bytes", File(name="a" * 256, content=TEXT)),
    "not utf-8": ("not UTF-8", File(name=b"\xff.py", content=TEXT, flags=1 << 11)),
    "utf-8 that is not marked": ("not UTF-8", File(name="é.py", content=TEXT)),
    "unicode path that differs": (
        "two names",
        File(
            name="a.py",
            content=TEXT,
            central={"extra": struct.pack("<2HBI", 0x7075, 9, 1, 0) + b"b.py"},
        ),
    ),
    "other disk": ("another disk", File(name="a.py", content=TEXT, central={"disk": 1})),
    "gap": ("belong to nothing", File(name="a.py", content=TEXT, after=b"hidden")),
    "hidden member": (
        "belong to nothing",
        File(name="a.py", content=TEXT, after=zipped(File(name="b.py"))[:34]),
    ),
    "no descriptor": ("no data descriptor", File(name="a.py", content=TEXT, flags=8, local=UNSAID)),
    "descriptor lies": (
        "data descriptor",
        File(
            name="a.py",
            content=TEXT,
            flags=8,
            local=UNSAID,
            descriptor=_descriptor(TEXT + b"x"),
        ),
    ),
    "descriptor not announced": (
        "belong to nothing",
        File(name="a.py", content=TEXT, descriptor=_descriptor(TEXT)),
    ),
    "zip64 field missing": ("zip64", File(name="a.py", content=TEXT, central={"size": FULL})),
    "zip64 field short": (
        "zip64",
        File(
            name="a.py",
            content=TEXT,
            central={"size": FULL, "compressed": FULL, "extra": _wide(len(TEXT))},
        ),
    ),
    "zip64 local size": (
        "local header",
        File(
            name="a.py",
            content=TEXT,
            local={"compressed": FULL, "size": FULL, "extra": _wide(9, SIZES[1])},
        ),
    ),
    "zip64 huge": (
        "zip bomb",
        File(name="a.py", content=TEXT, central={"size": FULL, "extra": _wide(1 << 63)}),
    ),
    "zip64 offset": (
        "overlaps|nothing",
        File(name="a.py", content=TEXT, central={"offset": FULL, "extra": _wide(1 << 63)}),
    ),
    "damaged extra": ("extra", File(name="a.py", content=TEXT, central={"extra": b"\1\0\xff\0ab"})),
    "no local header": ("local header|nothing", File(name="a.py", central={"offset": 3})),
}


@pytest.mark.parametrize(("match", "file"), LIES.values(), ids=LIES.keys())
def test_a_member_that_lies_is_refused(tmp_path, match, file):
    """A lie about one member is an error that says which, whatever place it is told in."""
    error = _refused(tmp_path, zipped(*members(file)), match)
    assert "\n" not in error.message


def test_duplicates_are_refused(tmp_path):
    """A name that stands twice, as a file or once as a folder, is an error."""
    twice = [File(name="a.py", content=TEXT), File(name="a.py", content=TEXT)]
    _refused(tmp_path, zipped(*members(*twice)), "'a.py' stands in it twice")
    both = [File(name="a", content=TEXT), File(name="a/", method=0, mode=0o40755)]
    _refused(tmp_path, zipped(*members(*both)), "twice")


def test_a_file_that_is_a_folder_too_is_refused(tmp_path):
    """A file below another file is an error."""
    files = [File(name="a", content=TEXT), File(name="a/b", content=TEXT)]
    _refused(tmp_path, zipped(*members(*files)), "not a directory")


def test_overlaps_are_refused(tmp_path):
    """Two members that share bytes, as those of the densest zip bombs do, are an error."""
    inner = zipped(File(name="b.py", content=TEXT, method=0))[: 34 + len(TEXT)]
    outer = File(name="a.py", content=inner, method=0)
    quoted = File(
        name="b.py",
        content=TEXT,
        method=0,
        central={"offset": 34},
    )
    data = zipped(*members(outer, quoted))
    # The second local header is the one inside the first member.
    _refused(tmp_path, data, "overlaps|belong to nothing")
    same = File(name="b.py", content=TEXT, central={"offset": 0})
    _refused(tmp_path, zipped(*members(File(name="a.py", content=TEXT), same)), "overlaps")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"before": b"#!/bin/sh\n"}, "belong to nothing"),
        ({"after": b"more"}, "after its end"),
        ({"after": b"\0"}, "after its end"),
        ({"end": {"entries": 3}}, "one part of several"),
        ({"end": {"entries": 3, "here": 3}}, "more in its directory"),
        ({"end": {"entries": 9, "here": 9}}, "damaged directory"),
        ({"end": {"disk": 1}}, "one part of several"),
        ({"end": {"offset": 7}}, "not where its end says"),
        ({"end": {"size": 7}}, "not where its end says"),
        ({"end64": {"entries": 3}}, "do not agree"),
        ({"end64": {"offset": 1 << 62}, "end": {"offset": FULL}}, "not where its end says"),
        ({"end64": {"size": 1 << 62}, "end": {"size": FULL}}, "not where its end says"),
        (
            {
                "end64": {"entries": 1 << 40, "here": 1 << 40},
                "end": {"entries": 0xFFFF, "here": 0xFFFF},
            },
            "more than any wheel",
        ),
        ({"comment": b"PK\x05\x06" + bytes(16) + b"\x04\x00" + b"four"}, "more than one end"),
    ],
)
def test_an_archive_that_lies_is_refused(tmp_path, settings, match):
    """Bytes before or after, a directory elsewhere, wrong counts, ends that differ: all errors."""
    _refused(tmp_path, zipped(*members(File(name="a.py", content=TEXT)), **settings), match)


def test_a_zip_bomb_is_refused_before_it_is_inflated(tmp_path):
    """A wheel that would unpack to a hundred times its size is an error by what it states."""
    bomb = File(name="a.bin", content=bytes(2 * SMALL))
    _refused(tmp_path, zipped(*members(bomb)), "zip bomb")


def test_a_bomb_that_states_little_stops_at_that(tmp_path):
    """A stream that inflates beyond its stated size is left there."""
    lie = {"size": 10, "crc32": 0}
    bomb = File(name="a.bin", content=bytes(SMALL), local=lie, central=lie)
    _refused(tmp_path, zipped(*members(bomb)), "more than the 10 bytes")


def test_every_cut_is_refused(tmp_path):
    """A wheel that is cut short anywhere is an error, and never anything else."""
    whole = zipped(*members(File(name="a.py", content=TEXT, method=0)))
    for length in range(0, len(whole), 7):
        _refused(tmp_path, whole[:length], NAME)


def test_no_damage_gets_through(tmp_path):
    """A flipped bit gives an error or, where it says nothing of the files, the same tree."""
    whole = zipped(
        *members(File(name="a.py", content=TEXT), File(name="b", content=bytes(range(99))))
    )
    layer = gzip.decompress(_layer(tmp_path, whole))  # the padding bits of a stream are free
    dice = random.Random(7)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        try:
            got = gzip.decompress(_layer(tmp_path, bytes(damaged)))
        except WheelError:
            continue
        assert got == layer or _modes_differ(bytes(damaged), whole)


def _modes_differ(one: bytes, other: bytes) -> bool:
    """Nothing in a zip guards the modes in its directory."""
    first, second = (
        [info.external_attr for info in zipfile.ZipFile(io.BytesIO(data)).infolist()]
        for data in (one, other)
    )
    return first != second


def test_members_read_back(tmp_path):
    """Each member's head and whole content are what was put in, deflated or stored."""
    files = [File(name="a", content=TEXT), File(name="b", content=TEXT, method=0)]
    pin, paths = pinned(tmp_path, zipped(*files))
    with WheelZip(paths[pin.digest], NAME) as wheel:
        for member in wheel.members:
            assert wheel.read(member, 1000) == TEXT
            assert wheel.head(member, 8) == TEXT[:8]
        with pytest.raises(WheelError, match="750 bytes where 700"):
            wheel.read(wheel.members[0], 700)


def test_executables_are_regular_files_with_an_x_bit(tmp_path):
    """As pip decides it: any x bit counts, but only of what the zip calls a regular file."""
    modes = {"a": 0o100755, "b": 0o100644, "c": 0o100010, "d": 0o755, "e": 0}
    pin, paths = pinned(
        tmp_path, zipped(*(File(name=name, mode=mode) for name, mode in modes.items()))
    )
    with WheelZip(paths[pin.digest], NAME) as wheel:
        found = {member.name for member in wheel.members if member.executable}
    assert found == {"a", "c"}
