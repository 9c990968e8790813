"""Unpacking layers, most of them hostile."""

import gzip
import io
import multiprocessing
import os
import stat
import tarfile
import time
from pathlib import Path

import pytest
import zstandard

from torchship.digest import Digest
from torchship.engines import extract, unpack
from torchship.errors import LayerError, StoreError
from torchship.layers.archive import Entry
from torchship.layers.layer import Layer
from torchship.oci.folders import remove
from torchship.oci.store import Store

from .conftest import write_layer


def plain(*members, format=tarfile.PAX_FORMAT, prefix=b"") -> bytes:
    """Make a tar archive of (name, attributes, content) the way anybody else would."""
    out = io.BytesIO(prefix)
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, attributes, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def file(name, content=b"x", **attributes):
    """Describe a file."""
    return name, {"mode": 0o644, **attributes}, content


def folder(name, mode=0o755):
    """Describe a folder."""
    return name, {"type": tarfile.DIRTYPE, "mode": mode}, b""


def link(name, target, type=tarfile.SYMTYPE):
    """Describe a link."""
    return name, {"type": type, "linkname": target}, b""


def node(name, type, major=0, minor=0):
    """Describe a device."""
    return name, {"type": type, "devmajor": major, "devminor": minor}, b""


@pytest.fixture
def unpacked(tmp_path):
    """Unpack an archive's bytes; return the folder."""

    def start(data: bytes, compress=gzip.compress, diff_id=None) -> Path:
        blob = compress(data)
        layer = Layer(
            digest=Digest.of(blob),
            diff_id=diff_id or Digest.of(data),
            size=len(blob),
            unpacked_size=len(data),
        )
        return unpack.unpack(layer, lambda _: io.BytesIO(blob), tmp_path / "unpacked")

    return start


def nothing_kept(tmp_path) -> bool:
    """Say whether a refused layer left no file but its lock."""
    return all(path.suffix == ".lock" for path in (tmp_path / "unpacked").iterdir())


def test_files_folders_and_links_come_out_as_they_went_in(unpacked):
    """Content, modes, symlinks and hard links are those of the archive, whatever the umask."""
    before = os.umask(0o077)
    try:
        root = unpacked(
            plain(
                folder("./", 0o750),
                folder("a", 0o555),
                file("a/program", b"#!", mode=0o755),
                file("implied/parent", b"content"),
                link("a/soft", "/etc/passwd"),
                link("hard", "./a/program", tarfile.LNKTYPE),
                folder("a", 0o500),
            )
        )
    finally:
        os.umask(before)
    assert stat.S_IMODE(root.stat().st_mode) == 0o750
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o500
    assert stat.S_IMODE((root / "a/program").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "implied").stat().st_mode) == 0o755
    assert (root / "implied/parent").read_bytes() == b"content"
    assert str((root / "a/soft").readlink()) == "/etc/passwd"
    assert (root / "hard").samefile(root / "a/program")


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_odd_names_are_kept_as_bytes(unpacked, format):
    """Names beyond 100 bytes, and such as are no UTF-8, in both dialects of tar."""
    long = "/".join(["d" * 90] * 3) + "/ü\udcff"
    target = "t" * 200
    root = unpacked(plain(file(long, b"1"), link("soft", target), format=format))
    assert (root / long).read_bytes() == b"1"
    assert str((root / "soft").readlink()) == target


@pytest.mark.parametrize(
    "compress",
    [
        gzip.compress,
        lambda data: b"".join(
            gzip.compress(data[at : at + 700]) for at in range(0, len(data), 700)
        ),
        lambda data: zstandard.compress(data[:900]) + zstandard.compress(data[900:]),
        lambda data: data,
    ],
    ids=["gzip", "gzip of many members", "zstd of two frames", "not compressed"],
)
def test_every_compression_of_the_image_specification_is_read(unpacked, compress):
    """Told by the first bytes, not by the media type."""
    content = os.urandom(3_000_000)
    assert (unpacked(plain(file("big", content)), compress) / "big").read_bytes() == content


def test_our_own_layers_unpack(tmp_path):
    """What the archive writer makes, this reads, with the diff_id it states."""
    layer = write_layer(
        tmp_path / "l", lambda archive: archive.add(Entry(path="a/b", size=2), [b"hi"])
    )
    root = unpack.unpack(layer, lambda _: (tmp_path / "l").open("rb"), tmp_path / "u")
    assert (root / "a/b").read_text() == "hi"


HOSTILE = {
    "absolute": [file("/etc/passwd")],
    "parent": [file("../escape")],
    "parent in the middle": [file("a/../../escape")],
    "parent of a folder": [folder("../escape")],
    "through a symlink": [link("a", "/tmp"), file("a/escape")],
    "through a symlink to a parent": [link("a", ".."), file("a/escape")],
    "through a symlinked folder, deeper": [link("a", "/"), file("a/tmp/escape")],
    "folder through a symlink": [link("a", "/tmp"), folder("a/escape")],
    "folder over a symlink": [link("a", "/tmp"), folder("a"), file("a/escape")],
    "whiteout through a symlink": [link("a", "/tmp"), file("a/.wh.escape")],
    "opaque through a symlink": [link("a", "/tmp"), file("a/.wh..wh..opq")],
    "hard link through a symlink": [link("a", "/etc"), link("b", "a/passwd", tarfile.LNKTYPE)],
    "hard link to a parent": [link("b", "../../etc/passwd", tarfile.LNKTYPE)],
    "absolute hard link": [link("b", "/etc/passwd", tarfile.LNKTYPE)],
    "hard link to nothing": [link("b", "none/at/all", tarfile.LNKTYPE)],
    "hard link to itself": [file("b"), link("b", "b", tarfile.LNKTYPE)],
    "hard link to a folder": [folder("a"), link("b", "a", tarfile.LNKTYPE)],
    "hard link into a symlink": [
        link("a", "/tmp"),
        file("c"),
        link("a/escape", "c", tarfile.LNKTYPE),
    ],
    "character device": [node("null", tarfile.CHRTYPE, 1, 3)],
    "block device": [node("disk", tarfile.BLKTYPE, 254, 0)],
    "file over a folder": [folder("a"), file("a/b"), file("a")],
    "symlink over a folder": [folder("a"), link("a", "/tmp"), file("a/escape")],
    "folder below a file": [file("a"), file("a/escape")],
    "file as the root": [file(".")],
    "symlink as the root": [link("./", "/tmp"), file("escape")],
    "whiteout of a parent": [file(".wh...")],
    "whiteout of nothing": [file(".wh.")],
    "name too long": [file("n" * 300)],
    "too deep": [folder("/".join(["d"] * 200))],
    "unknown kind": [("a", {"type": b"V"}, b"")],
    "sparse": [("a", {"type": tarfile.GNUTYPE_SPARSE}, b"")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_a_layer_that_would_leave_its_folder_is_refused(unpacked, tmp_path, members):
    """Nothing is written outside, and nothing of the layer is kept."""
    with pytest.raises(LayerError):
        unpacked(plain(*members))
    assert nothing_kept(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["unpacked"]
    assert not Path("/tmp/escape").exists()


def test_a_file_that_comes_twice_is_replaced_not_written_through(unpacked):
    """The second entry takes the place of a symlink or hard link, whose target stays."""
    root = unpacked(
        plain(
            file("a", b"1"),
            link("b", "a", tarfile.LNKTYPE),
            link("c", "a"),
            file("b", b"2"),
            file("c", b"3"),
        )
    )
    assert [(root / name).read_bytes() for name in "abc"] == [b"1", b"2", b"3"]


def test_setuid_bits_and_owners_are_left_out(unpacked):
    """A program of root in an image is not one of root on the host."""
    root = unpacked(plain(file("su", mode=0o6755, uid=0, gid=0), folder("tmp", 0o3777)))
    found = (root / "su").stat()
    assert stat.S_IMODE(found.st_mode) == 0o755
    assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777


def test_another_diff_id_is_refused(unpacked, tmp_path):
    """The uncompressed bytes must be those that the image's config names."""
    with pytest.raises(LayerError, match="its image says"):
        unpacked(plain(file("a")), diff_id=Digest.of(b"another"))
    assert nothing_kept(tmp_path)


def test_bytes_after_the_archive_count_for_the_diff_id(unpacked):
    """A stream is hashed to its end, not to the end of its archive."""
    data = plain(file("a"))
    with pytest.raises(LayerError, match="its image says"):
        unpacked(data + b"more", diff_id=Digest.of(data))
    assert (unpacked(data + b"more") / "a").exists()


@pytest.mark.parametrize("kept", [5, 300, -9, -1])
@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress, bytes])
def test_a_truncated_blob_is_refused(unpacked, tmp_path, compress, kept):
    """At every stage of the stream."""
    data = plain(file("a", os.urandom(20_000)))
    with pytest.raises(LayerError):
        unpacked(data, lambda data: compress(data)[:kept])
    assert nothing_kept(tmp_path)


def test_a_damaged_blob_is_refused(unpacked):
    """One flipped bit is found, whatever it hits."""
    data = plain(file("a", bytes(range(256)) * 400))
    whole = gzip.compress(data, mtime=0)
    for at in range(0, len(whole), 37):
        flipped = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
        if 4 <= at < 10:
            continue  # time, flags and system in the gzip header say nothing of the content
        with pytest.raises(LayerError):
            unpacked(data, lambda _, flipped=flipped: flipped)


def test_a_header_with_a_false_checksum_is_refused(unpacked):
    """A tar header that was changed is not believed."""
    data = bytearray(plain(file("a")))
    data[0:1] = b"b"
    with pytest.raises(LayerError, match="damaged"):
        unpacked(bytes(data))


def test_limits_are_kept(unpacked, monkeypatch):
    """A layer of too many entries, or that grows too large, fills no disk."""
    monkeypatch.setattr(extract, "MAX_ENTRIES", 10)
    with pytest.raises(LayerError, match="entries"):
        unpacked(plain(*(file(f"f{number}") for number in range(11))))
    monkeypatch.setattr(extract, "MAX_BYTES", 1 << 20)
    with pytest.raises(LayerError, match="unpacks to more"):
        unpacked(plain(file("bomb", bytes(2 << 20))))


def test_whiteouts_become_those_of_overlayfs(unpacked):
    """A hidden name is a 0/0 character device, an opaque folder carries an attribute."""
    root = unpacked(
        plain(
            file("a/.wh.gone", b""),
            file("b/.wh..wh..opq", b""),
            file("b/new"),
            file(".wh.c", b""),
            folder("c"),
            file("c/new"),
            file(".wh.d", b""),
            file("d"),
            node("e", tarfile.CHRTYPE),
            node("f/g", tarfile.CHRTYPE),
            file(".wh..wh.plnk", b""),
        )
    )
    for name in ("a/gone", "e", "f/g"):
        found = (root / name).lstat()
        assert (stat.S_ISCHR(found.st_mode), found.st_rdev) == (True, 0)
    for name in ("b", "c"):
        assert os.getxattr(root / name, "user.overlay.opaque") == b"y"
        assert (root / name / "new").exists()
    assert (root / "d").is_file()
    assert sorted(path.name for path in root.iterdir()) == ["a", "b", "c", "d", "e", "f"]


def test_few_descriptors_are_open_at_a_time(unpacked, monkeypatch):
    """Eight layers unpacked at once stay below the usual limit of 1024, links included."""
    most = 0
    count = extract.Folder.add

    def counted(self, member, source):
        nonlocal most
        count(self, member, source)
        most = max(most, len(self._open))

    monkeypatch.setattr(extract.Folder, "add", counted)
    deep = "/".join("d" * 100)
    members = [folder(f"f{number}") for number in range(300)]
    members += [file(f"f{number}/file") for number in range(300)]
    members += [file(f"{deep}/file"), link("f0/link", f"{deep}/file", tarfile.LNKTYPE)]
    root = unpacked(plain(*members))
    assert most * 8 < 1000
    assert (root / "f0/link").samefile(root / deep / "file")


def test_a_layer_is_unpacked_once(tmp_path):
    """The second time its blob is not even opened."""
    layer = write_layer(
        tmp_path / "l", lambda archive: archive.add(Entry(path="a", size=2), [b"hi"])
    )
    first = unpack.unpack_all([layer], lambda _: (tmp_path / "l").open("rb"), tmp_path / "u")
    second = unpack.unpack_all([layer, layer], lambda _: 1 / 0, tmp_path / "u")
    assert second == first * 2


def test_what_a_power_cut_may_have_torn_is_unpacked_again(tmp_path):
    """A folder from before the last boot counts only if it was settled."""
    layer = write_layer(
        tmp_path / "l", lambda archive: archive.add(Entry(path="a", size=2), [b"hi"])
    )
    unpacked = tmp_path / "u"
    opened = []

    def blob(_):
        opened.append(1)
        return (tmp_path / "l").open("rb")

    (root,) = unpack.unpack_all([layer], blob, unpacked)
    (root.parent / "boot").write_text("the boot before this one")
    (root / "a").write_text("")
    unpack.unpack_all([layer], blob, unpacked)
    assert ((root / "a").read_text(), len(opened)) == ("hi", 2)
    unpack.settle(unpacked, [layer])
    (root.parent / "boot").write_text("the boot before this one")
    unpack.unpack_all([layer], blob, unpacked)
    assert len(opened) == 2


def test_what_was_just_unpacked_is_left_to_the_system(tmp_path):
    """Nobody waits for the disk: a layer is settled when it has had the time to get there."""
    layer = write_layer(
        tmp_path / "l", lambda archive: archive.add(Entry(path="a", size=2), [b"hi"])
    )
    (root,) = unpack.unpack_all([layer], lambda _: (tmp_path / "l").open("rb"), tmp_path / "u")
    assert unpack.unsettled(tmp_path / "u", [layer, layer], age=60) == ()
    aged = time.time() - 61
    os.utime(root.parent / "boot", (aged, aged))
    assert unpack.unsettled(tmp_path / "u", [layer, layer], age=60) == (layer,)
    unpack.settle(tmp_path / "u", [layer])
    assert unpack.unsettled(tmp_path / "u", [layer], age=60) == ()


def _unpack(path, layer_values, unpacked):
    digest, diff_id, size = layer_values
    layer = Layer(digest=Digest(digest), diff_id=Digest(diff_id), size=size, unpacked_size=0)
    unpack.unpack(layer, lambda _: path.open("rb"), unpacked)


def test_processes_that_unpack_one_layer_at_once_wait_for_one_another(tmp_path):
    """Each finds the whole layer."""
    content = os.urandom(1 << 20)
    layer = write_layer(
        tmp_path / "l", lambda archive: archive.add(Entry(path="a", size=len(content)), [content])
    )
    values = (layer.digest.hex, layer.diff_id.hex, layer.size)
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_unpack, args=(tmp_path / "l", values, tmp_path / "u"))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert (unpack.tree(tmp_path / "u", layer) / "a").read_bytes() == content
    assert sorted(path.suffix for path in (tmp_path / "u").iterdir()) == ["", ".lock"]


def test_killed_at_any_moment_it_leaves_nothing_that_is_used(tmp_path):
    """After kill -9 the next process unpacks the whole layer and clears the rest away."""
    contents = [os.urandom(1 << 16) for _ in range(64)]

    def add(archive):
        for number, content in enumerate(contents):
            archive.add(Entry(path=f"f{number:02}", size=len(content)), [content])

    layer = write_layer(tmp_path / "l", add)
    values = (layer.digest.hex, layer.diff_id.hex, layer.size)
    context = multiprocessing.get_context("fork")
    for moment in range(12):
        worker = context.Process(target=_unpack, args=(tmp_path / "l", values, tmp_path / "u"))
        worker.start()
        time.sleep(moment * 0.004)
        worker.kill()
        worker.join()
        if (tmp_path / "u" / layer.diff_id.hex).exists():
            root = unpack.tree(tmp_path / "u", layer)
            assert [path.read_bytes() for path in sorted(root.iterdir())] == contents
            remove(root.parent)
    _unpack(tmp_path / "l", values, tmp_path / "u")
    assert sorted(path.suffix for path in (tmp_path / "u").iterdir()) == ["", ".lock"]


def test_a_folder_that_cannot_be_written_is_an_error_with_a_hint(tmp_path):
    """A file in the store's place, as a full or read-only disk, is the store's error."""
    (tmp_path / "u").write_text("")
    layer = write_layer(
        tmp_path / "l", lambda archive: archive.add(Entry(path="a", size=2), [b"hi"])
    )
    with pytest.raises(StoreError) as caught:
        unpack.unpack(layer, lambda _: (tmp_path / "l").open("rb"), tmp_path / "u")
    assert "TORCHSHIP_HOME" in caught.value.hint


def test_memory_stays_flat(tmp_path, unpacked):
    """A layer of 96 MiB is unpacked with a few MB of memory."""
    import resource

    block = os.urandom(1 << 20)
    layer = write_layer(
        tmp_path / "l",
        lambda archive: archive.add(Entry(path="a", size=96 << 20), [block] * 96),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    root = unpack.unpack(layer, lambda _: (tmp_path / "l").open("rb"), tmp_path / "u")
    assert (root / "a").stat().st_size == 96 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 << 10  # KiB


def test_nobody_else_reaches_what_a_layer_left_writable(tmp_path):
    """Layers keep modes such as 0777: the store lets no other user through to them."""
    store = Store.open(tmp_path / "home")
    store.put(b"x", "text/plain")
    layer = write_layer(
        tmp_path / "l", lambda archive: archive.add(Entry(path="a", size=2, mode=0o777), [b"hi"])
    )
    root = unpack.unpack(layer, lambda _: (tmp_path / "l").open("rb"), store.unpacked)
    assert (root / "a").stat().st_mode & 0o777 == 0o777
    assert store.unpacked.stat().st_mode & 0o077 == 0


def test_a_store_that_stood_open_is_closed_when_it_is_used(tmp_path):
    """Also where everything is unpacked already, and nothing is left to write."""
    layer = write_layer(
        tmp_path / "l", lambda archive: archive.add(Entry(path="a", size=2), [b"hi"])
    )
    for _ in range(2):
        unpack.unpack_all([layer], lambda _: (tmp_path / "l").open("rb"), tmp_path / "u")
        assert (tmp_path / "u").stat().st_mode & 0o777 == 0o700
        (tmp_path / "u").chmod(0o777)
    unpack.unpack(layer, lambda _: (tmp_path / "l").open("rb"), tmp_path / "u")
    assert (tmp_path / "u").stat().st_mode & 0o777 == 0o700
