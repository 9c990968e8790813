"""The archive writer: tar headers, gzip members, splicing, digests."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib

import pytest

from torchship.errors import HostileInput
from torchship.layers.archive import BLOCK, SMALL, Archive, Entry, Kind, Written


def _deflated(data: bytes) -> bytes:
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return encoder.compress(data) + encoder.flush()


def _archive_of(*entries: tuple[Entry, bytes]) -> tuple[bytes, Written]:
    sink = io.BytesIO()
    archive = Archive(sink)
    for entry, content in entries:
        archive.add(entry, [content] if content else [])
    written = archive.close()
    return sink.getvalue(), written


def _read(layer: bytes) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(layer), mode="r:gz") as tar:
        found = {}
        for info in tar:
            stream = tar.extractfile(info) if info.isreg() else None
            found[info.name] = (info, stream.read() if stream else b"")
        return found


def _file(path: str, content: bytes, **settings: int) -> tuple[Entry, bytes]:
    return Entry(path=path, size=len(content), **settings), content


def _splice(content: bytes, stream: bytes, *, size: int | None = None, crc: int | None = None):
    archive = Archive(io.BytesIO())
    entry = Entry(path="a", size=len(content) if size is None else size)
    archive.splice(entry, iter([stream]), zlib.crc32(content) if crc is None else crc)


def test_entries_come_back_as_they_went_in():
    """What is added is what tarfile reads: kinds, modes, owners, targets, bytes."""
    sink = io.BytesIO()
    archive = Archive(sink)
    archive.add(Entry(path="bin", kind=Kind.DIRECTORY, mode=0o1777, uid=1000, gid=100))
    archive.add(*_listed(_file("bin/a", b"hello", mode=0o755)))
    archive.add(Entry(path="bin/b", kind=Kind.SYMLINK, mode=0o777, target="../x"))
    archive.add(Entry(path="bin/c", kind=Kind.HARDLINK, target="bin/a"))
    archive.close()
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as tar:
        directory, regular, symlink, hardlink = tar.getmembers()
        assert (directory.mode, directory.uid, directory.gid) == (0o1777, 1000, 100)
        assert directory.isdir()
        assert regular.mode == 0o755
        assert tar.extractfile(regular).read() == b"hello"
        assert symlink.issym() and symlink.linkname == "../x"
        assert hardlink.islnk() and hardlink.linkname == "bin/a"
        assert {member.mtime for member in tar.getmembers()} == {0}


def _listed(pair: tuple[Entry, bytes]) -> tuple[Entry, list[bytes]]:
    return pair[0], [pair[1]]


@pytest.mark.parametrize(
    "entry",
    [
        Entry(path="a" * 99, size=3),
        Entry(path="a" * 100, size=3),
        Entry(path="a" * 101, size=3),
        Entry(path="d" * 100, kind=Kind.DIRECTORY, mode=0o755),
        Entry(path="한국어", size=8**11 - 1),
        Entry(path="big", size=8**11),
        Entry(path="x", uid=8**7, gid=8**7 - 1),
        Entry(path="l", kind=Kind.SYMLINK, target="ü" * 120, mode=0o777),
        Entry(path="l", kind=Kind.HARDLINK, target="b" * 101, mode=0o4755),
        Entry(path="q" * 93 + "é" * 60),
    ],
    ids=lambda entry: entry.path[:9] + entry.kind.name,
)
def test_headers_are_those_of_tarfile(entry):
    """Each header has the very bytes that Python's tarfile writes in its pax format."""
    from torchship.layers.archive import _header

    info = tarfile.TarInfo(entry.path)
    info.type, info.mode, info.linkname = entry.kind.value, entry.mode, entry.target
    info.uid, info.gid, info.size, info.mtime = entry.uid, entry.gid, entry.size, 0
    assert _header(entry) == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def test_digests_and_sizes_are_of_the_bytes():
    """The digests and sizes returned are those of the layer and of what it decompresses to."""
    layer, written = _archive_of(_file("a", b"x" * 3 * BLOCK), _file("b/c", b"y"))
    plain = gzip.decompress(layer)
    assert written.digest.hex == hashlib.sha256(layer).hexdigest()
    assert written.diff_id.hex == hashlib.sha256(plain).hexdigest()
    assert (written.size, written.unpacked_size) == (len(layer), len(plain))


def test_parents_are_written_once():
    """Missing parents become directories of mode 0755, each of them once."""
    layer, _ = _archive_of(_file("a/b/c", b"1"), _file("a/b/d", b"2"))
    assert list(_read(layer)) == ["a", "a/b", "a/b/c", "a/b/d"]


def test_a_spliced_file_is_the_same_as_an_added_one():
    """Splicing and adding the same file give one diff_id, and the spliced bytes stay as given."""
    content = b"import torch\n" * 5000
    stream = _deflated(content)
    sink = io.BytesIO()
    archive = Archive(sink)
    archive.splice(Entry(path="a", size=len(content)), iter([stream]), zlib.crc32(content))
    spliced = archive.close()
    _, added = _archive_of(_file("a", content))
    assert spliced.diff_id == added.diff_id
    assert stream in sink.getvalue()
    assert _read(sink.getvalue())["a"][1] == content


def test_a_small_file_is_compressed_with_its_neighbours():
    """Of many small files and their headers one gzip member is made, as if they had been added."""
    contents = [bytes([number]) * SMALL for number in range(9)]
    sink = io.BytesIO()
    archive = Archive(sink)
    for number, content in enumerate(contents):
        entry = Entry(path=str(number), size=SMALL)
        archive.splice(entry, iter([_deflated(content)]), zlib.crc32(content))
    archive.close()
    layer, _ = _archive_of(*(_file(str(n), content) for n, content in enumerate(contents)))
    assert sink.getvalue() == layer
    assert _deflated(contents[0]) not in layer


@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_how_a_stream_is_cut_changes_nothing(step):
    """The layer does not depend on the sizes of the pieces that a stream comes in."""
    content = bytes(range(256)) * 40 + bytes(3 * BLOCK)
    stream = _deflated(content)
    sinks = []
    for size in (step, len(stream)):
        sink = io.BytesIO()
        archive = Archive(sink)
        pieces = (stream[at : at + size] for at in range(0, len(stream), size))
        archive.splice(Entry(path="a", size=len(content)), pieces, zlib.crc32(content))
        archive.close()
        sinks.append(sink.getvalue())
    assert sinks[0] == sinks[1]


@pytest.mark.parametrize("length", [3000, 3 * SMALL])
@pytest.mark.parametrize(
    ("off", "crc", "cut", "extra", "message"),
    [
        (0, 0, 0, b"", "crc32"),
        (-1, None, 0, b"", "more than the [0-9]+ bytes"),
        (1, None, 0, b"", "inflates to [0-9]+ bytes"),
        (0, None, 1, b"", "ends too early"),
        (0, None, 0, b"\0", "follow the end"),
    ],
)
def test_a_stream_that_lies_is_refused(length, off, crc, cut, extra, message):
    """A wrong crc32, a wrong size, a cut stream and trailing bytes are all errors."""
    content = b"abc" * (length // 3)
    stream = _deflated(content)
    with pytest.raises(HostileInput, match=message):
        _splice(content, stream[: len(stream) - cut] + extra, size=length + off, crc=crc)


def test_a_stream_that_states_no_bytes_has_none():
    """A stream of something is refused where nothing is stated."""
    with pytest.raises(HostileInput, match="more than the 0 bytes"):
        _splice(b"abc", _deflated(b"abc"), size=0)


def test_a_damaged_stream_is_refused():
    """Bytes that are no deflate stream are an error, not a crash."""
    with pytest.raises(HostileInput, match="damaged"):
        _splice(b"abc", b"\xff\xff\xff\xff\xff")


def test_a_bomb_stops_at_its_stated_size():
    """A stream that inflates a thousandfold is left after one block beyond what it states."""
    bomb = _deflated(bytes(64 << 20))
    with pytest.raises(HostileInput, match="more than the 10 bytes"):
        _splice(b"", bomb, size=10, crc=0)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "a/../b", "..", ".", "a//b", "a/", "", "a\0b", "a/./b", "\udcff"]
)
def test_paths_that_leave_the_root_are_refused(path):
    """Only plain relative UTF-8 paths get into a layer."""
    with pytest.raises(HostileInput, match="path"):
        _archive_of(_file(path, b""))


def test_one_path_stands_once():
    """A second entry for a path, and a file below a file, are errors."""
    with pytest.raises(HostileInput, match="twice"):
        _archive_of(_file("a", b"1"), _file("a", b"1"))
    with pytest.raises(HostileInput, match="not a directory"):
        _archive_of(_file("a", b"1"), _file("a/b", b"1"))


@pytest.mark.parametrize("content", [b"1234", b"123456"])
def test_content_must_have_its_stated_size(content):
    """Content shorter or longer than stated is an error, since it would shift all that follows."""
    with pytest.raises(HostileInput, match="where 5 were stated"):
        Archive(io.BytesIO()).add(Entry(path="a", size=5), [content])
