"""Properties of the splice: for any wheel, the layer is the tar of its files."""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
import zlib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.layers.wheels import File, members, pinned, zipped

from torchship.layers.archive import Archive, Entry, Kind, Written, _header
from torchship.layers.layer import Materials
from torchship.layers.wheel import WheelsRecipe

SITE = "opt/venv/lib/python3.11/site-packages"

parts = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0", exclude_categories=("Cs",)),
    min_size=1,
    max_size=40,
).filter(lambda part: part not in (".", "..") and not part.endswith((".data", ".dist-info")))
paths = st.lists(parts, min_size=1, max_size=4).map("/".join)
contents = st.one_of(
    st.binary(max_size=300),
    # Long runs: streams that inflate to many times their size.
    st.builds(
        lambda byte, count: byte * count, st.binary(min_size=1, max_size=3), st.integers(0, 1 << 16)
    ),
)
streams = st.builds(
    lambda level, strategy: (level, strategy),
    st.integers(0, 9),
    st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_FIXED, zlib.Z_RLE]),
)


def _encode(content: bytes, how: tuple[int, int]) -> bytes:
    level, strategy = how
    encoder = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    middle = len(content) // 2
    return (
        encoder.compress(content[:middle])
        + encoder.flush(zlib.Z_FULL_FLUSH)  # a block boundary inside the stream
        + encoder.compress(content[middle:])
        + encoder.flush()
    )


def _plain(files: dict[str, bytes]) -> Written:
    archive = Archive(io.BytesIO())
    for path, content in files.items():
        archive.add(Entry(path=path, size=len(content)), [content])
    return archive.close()


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.integers(0, 99), st.tuples(contents, streams), max_size=8), st.data())
def test_splicing_is_adding(files, data):
    """Spliced from any encoder's stream, cut anywhere, a layer unpacks to the same tar."""
    sink = io.BytesIO()
    archive = Archive(sink)
    for name, (content, how) in files.items():
        stream = _encode(content, how)
        cut = data.draw(st.integers(0, len(stream)))
        pieces = [piece for piece in (stream[:cut], stream[cut:]) if piece]
        entry = Entry(path=str(name), size=len(content))
        archive.splice(entry, iter(pieces), zlib.crc32(content))
    written = archive.close()
    added = _plain({str(name): content for name, (content, _) in files.items()})
    assert (written.diff_id, written.unpacked_size) == (added.diff_id, added.unpacked_size)
    assert len(gzip.decompress(sink.getvalue())) == written.unpacked_size


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(paths, st.tuples(contents, st.sampled_from([0, 8])), max_size=8))
def test_any_wheel_comes_back_as_its_files(files):
    """Whatever paths and contents a wheel has, its layer holds just these, byte for byte."""
    tops = {path for path in files if not any(_below(other, path) for other in files)}
    made = [
        File(name=path, content=files[path][0], method=files[path][1], flags=1 << 11)
        for path in sorted(tops)
    ]
    with tempfile.TemporaryDirectory() as folder:
        pin, found = pinned(Path(folder), zipped(*members(*made)))
        sink = io.BytesIO()
        archive = Archive(sink)
        recipe = WheelsRecipe(wheels=(pin,), python="3.11")
        recipe.write(archive, Materials(files=found, scratch=Path(folder)))
        archive.close()
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as tar:
        layer = {info.name: tar.extractfile(info).read() for info in tar if info.isreg()}
    held = {path: content for path, content in layer.items() if "/demo-1.0.dist-info/" not in path}
    assert held == {f"{SITE}/{path}": files[path][0] for path in tops}


def _below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


@settings(max_examples=300)
@given(
    path=paths,
    kind=st.sampled_from(Kind),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 1 << 32),
    size=st.integers(0, 1 << 40),
    target=st.one_of(st.just(""), paths),
)
def test_any_header_is_that_of_tarfile(path, kind, mode, uid, size, target):
    """For every entry, the header's bytes are those that Python's tarfile writes."""
    entry = Entry(path=path, kind=kind, mode=mode, uid=uid, gid=uid // 2, size=size, target=target)
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.linkname = kind.value, mode, target
    info.uid, info.gid, info.mtime = uid, uid // 2, 0
    info.size = size if kind is Kind.FILE else 0
    assert _header(entry) == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
