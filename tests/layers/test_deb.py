"""Debian packages as files from outside."""

import io
import lzma
import tarfile

import pytest

from torchship.errors import PackageError
from torchship.layers.archive import Kind
from torchship.layers.deb import open_deb


def listing(debs, pin):
    """Return all that a package holds."""
    deb = open_deb(debs.files[pin.digest], f"{pin.name} {pin.version}")
    return [(found.path, found.kind, b"".join(found.content)) for found in deb.members()]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_every_compression_in_use_is_read(debs, member_of, suffix):
    """Plain, gzip, xz and zstd packages give the same members, however large."""
    big = bytes(range(256)) * 20_000
    pin = debs.make("a", [member_of("./usr/bin/a", big), member_of("./b", b"b")], suffix=suffix)
    assert listing(debs, pin) == [("usr/bin/a", Kind.FILE, big), ("b", Kind.FILE, b"b")]


def test_the_control_paragraph_is_kept_as_it_came(debs, member_of):
    """What goes into dpkg's database is the package's own text."""
    text = "Package: a\nVersion: 1:2-3\nDescription: one\n two\n .\n three\n"
    pin = debs.make("a", [], control=text)
    assert open_deb(debs.files[pin.digest], "a").control == text.strip()


def test_links_are_told_from_files(debs, member_of):
    """Symlinks keep their target as written, hard links are normal paths of the package."""
    pin = debs.make(
        "a",
        [
            member_of("./d/", type=tarfile.DIRTYPE, mode=0o755),
            member_of("./d/f", b"f"),
            member_of("./d/l", type=tarfile.SYMTYPE, target="../d/f"),
            member_of("./d/h", type=tarfile.LNKTYPE, target="./d/f"),
        ],
    )
    deb = open_deb(debs.files[pin.digest], "a")
    assert [(found.path, found.kind, found.target) for found in deb.members()] == [
        ("d", Kind.DIRECTORY, ""),
        ("d/f", Kind.FILE, ""),
        ("d/l", Kind.SYMLINK, "../d/f"),
        ("d/h", Kind.HARDLINK, "d/f"),
    ]


@pytest.mark.parametrize(
    ("name", "type", "target"),
    [
        ("../etc/passwd", tarfile.REGTYPE, ""),
        ("/etc/passwd", tarfile.REGTYPE, ""),
        ("./a/../b", tarfile.REGTYPE, ""),
        ("./dev/null", tarfile.CHRTYPE, ""),
        ("./dev/sda", tarfile.BLKTYPE, ""),
        ("./pipe", tarfile.FIFOTYPE, ""),
        ("./h", tarfile.LNKTYPE, "../../etc/shadow"),
        ("./l", tarfile.SYMTYPE, ""),
    ],
)
def test_members_that_no_package_has_are_refused(debs, member_of, name, type, target):
    """Paths that leave the root and devices are errors that name the package."""
    pin = debs.make("evil", [member_of(name, type=type, target=target)])
    with pytest.raises(PackageError, match=r"^evil 1.0"):
        listing(debs, pin)


def good(debs, member_of):
    """Return the bytes of a sound package."""
    pin = debs.make("good", [member_of("./a", b"a" * 5000)])
    return debs.files[pin.digest].read_bytes()


@pytest.mark.parametrize("cut", [0, 4, 30, 100, 300, -1, -60])
def test_a_truncated_package_is_an_error(debs, member_of, cut):
    """A package that ends too early is never taken for a smaller one."""
    data = good(debs, member_of)[: cut or 1]
    pin = debs.write("short", data)
    with pytest.raises(PackageError, match="short"):
        listing(debs, pin)


@pytest.mark.parametrize("position", range(0, 700, 7))
def test_a_damaged_package_is_an_error_or_the_same(debs, member_of, position):
    """A flipped byte ends in PackageError, or in a field that nothing reads."""
    data = bytearray(good(debs, member_of))
    data[position % len(data)] ^= 0xFF
    pin = debs.write("damaged", bytes(data))
    try:
        assert listing(debs, pin) == [("a", Kind.FILE, b"a" * 5000)]
    except PackageError as error:
        assert error.message.startswith("damaged")


def test_a_bomb_stops_before_it_fills_anything(debs, ar_of):
    """A package that inflates beyond reason is refused while it is read."""
    out = io.BytesIO()
    with lzma.open(out, "w", preset=0) as sink:
        info = tarfile.TarInfo("zeros")
        info.size = 400 << 20
        sink.write(info.tobuf())
        for _ in range(100):
            sink.write(bytes(4 << 20))
    control = debs.make("x", [])
    plain = debs.files[control.digest].read_bytes()
    end = plain.index(b"data.tar.xz")
    bomb = plain[:end] + ar_of([("data.tar.xz", out.getvalue())])[8:]
    pin = debs.write("bomb", bomb)
    deb = open_deb(debs.files[pin.digest], "bomb")
    with pytest.raises(PackageError, match="inflates"):
        for found in deb.members():
            for _ in found.content:
                pass


@pytest.mark.parametrize(
    "files",
    [
        [],
        [("debian-binary", b"2.0\n")],
        [("debian-binary", b"3.0\n"), ("control.tar", b""), ("data.tar", b"")],
        [("control.tar", b""), ("debian-binary", b"2.0\n"), ("data.tar", b"")],
        [("debian-binary", b"2.0\n"), ("control.tar", b""), ("data.tar", b"")],
        [("debian-binary", b"2.0\n"), ("control.tar.lz4", b"x"), ("data.tar", b"")],
    ],
)
def test_what_is_no_package_is_refused(debs, ar_of, files):
    """The members of a package, their order and its version are checked."""
    pin = debs.write("odd", ar_of(files))
    with pytest.raises(PackageError, match="odd"):
        open_deb(debs.files[pin.digest], "odd")


def test_a_negative_size_does_not_lead_backwards(debs, ar_of):
    """An ar header with a size below zero is a damaged directory."""
    data = ar_of([("debian-binary", b"2.0\n"), ("control.tar", b"x")])
    pin = debs.write("back", data.replace(b"4         `", b"-60       `", 1))
    with pytest.raises(PackageError, match="damaged directory"):
        open_deb(debs.files[pin.digest], "back")


def test_a_control_file_of_two_paragraphs_is_refused(debs):
    """A package cannot smuggle another's paragraph into dpkg's database."""
    pin = debs.make("a", [], control="Package: a\n\nPackage: b\n")
    with pytest.raises(PackageError, match="one paragraph"):
        open_deb(debs.files[pin.digest], "a")
