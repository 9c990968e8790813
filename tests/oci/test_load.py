import gzip
import io
import json
import tarfile

import pytest

from torchship.digest import Digest
from torchship.errors import HostileInput, ManifestError, StoreError
from torchship.oci import mediatypes
from torchship.oci.assemble import index
from torchship.oci.image import read_image, read_one
from torchship.oci.load import load
from torchship.oci.reference import Reference
from torchship.oci.save import save
from torchship.oci.store import Store
from torchship.platform import Platform

NAME = Reference.parse("mnist:v0.1")


@pytest.fixture
def other(tmp_path):
    """Return a second, empty store."""
    return Store.open(tmp_path / "other")


@pytest.fixture
def archive(store, image, tmp_path):
    """Save an image; return its descriptor and the file."""
    descriptor = image()
    path = tmp_path / "image.tar"
    save(store, descriptor, path, names=[NAME])
    return descriptor, path


def members(path):
    """Return the files of a tar, by name."""
    with tarfile.open(path) as archive:
        regular = [member for member in archive if member.isreg()]
        return {member.name: archive.extractfile(member).read() for member in regular}


def write(path, files, links=()):
    """Write a tar of files and symbolic links."""
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)


@pytest.mark.parametrize("form", ["tar", "tar.gz", "layout"])
def test_what_was_saved_is_loaded(archive, other, tmp_path, form):
    """The same digest comes in under the same name, from a file, packed or not, or a folder."""
    descriptor, path = archive
    if form == "tar.gz":
        packed = tmp_path / "image.tar.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    elif form == "layout":
        folder = tmp_path / "layout"
        for name, data in members(path).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        path = folder
    (loaded,) = load(other, path)
    assert loaded.descriptor.digest == descriptor.digest
    assert loaded.names == (NAME,)
    assert other.find("mnist:v0.1").digest == descriptor.digest
    image = read_one(other, descriptor)
    assert all(b"".join(other.read_verified(layer.descriptor)) for layer in image.layers)


def test_an_image_without_a_name_is_kept(store, image, other, tmp_path):
    """It is found by its digest."""
    descriptor = image()
    save(store, descriptor, tmp_path / "x.tar")
    assert load(other, tmp_path / "x.tar")[0].names == ()
    assert other.find(str(descriptor.digest)).digest == descriptor.digest


def test_an_index_may_come_with_one_of_its_platforms(store, image, other, tmp_path):
    """As Docker saves it; what is there can be used."""
    amd64, arm64 = image(b"1"), image(b"2", Platform("linux", "arm64"))
    save(store, index(store, [amd64, arm64]), tmp_path / "x.tar", names=[NAME])
    files = members(tmp_path / "x.tar")
    del files[f"blobs/sha256/{arm64.digest.hex}"]
    write(tmp_path / "y.tar", files)
    (loaded,) = load(other, tmp_path / "y.tar")
    found = read_image(other, loaded.descriptor, Platform("linux", "amd64"))
    assert found.descriptor.digest == amd64.digest


def test_an_old_docker_archive_is_loaded(store, image, other, tmp_path):
    """Plain layers, some of them links to others, and a config that is the image's id."""
    found = read_one(store, image())
    layers = {}
    for layer in found.layers:
        with store.open_blob(layer.digest) as stream:
            layers[layer.diff_id] = gzip.decompress(stream.read())
    config = found.raw_config
    first, second = (layer.diff_id for layer in found.layers)
    files = {
        "abc.json": config,
        "one/layer.tar": layers[first],
        "shared/layer.tar": layers[second],
        "manifest.json": json.dumps(
            [
                {
                    "Config": "abc.json",
                    "RepoTags": ["mnist:old"],
                    "Layers": ["one/layer.tar", "two/layer.tar"],
                }
            ]
        ).encode(),
    }
    write(tmp_path / "docker.tar", files, [("two/layer.tar", "../shared/layer.tar")])
    (loaded,) = load(other, tmp_path / "docker.tar")
    image = read_one(other, other.find("mnist:old"))
    assert image.config.digest == Digest.of(config)
    assert [layer.digest for layer in image.layers] == [first, second]
    assert {layer.media_type for layer in image.layers} == {mediatypes.OCI_TAR}
    assert loaded.descriptor.platform == {"os": "linux", "architecture": "amd64"}

    files["one/layer.tar"], files["shared/layer.tar"] = layers[second], layers[first]
    write(tmp_path / "docker.tar", files, [("two/layer.tar", "../shared/layer.tar")])
    with pytest.raises(ManifestError, match="is not the"):
        load(other, tmp_path / "docker.tar")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no documents", "no image archive"),
        ("a blob under a wrong name", "was asked for"),
        ("a blob with no digest", "64 hexadecimal"),
        ("a missing layer", "lacks a part"),
        ("a missing manifest", "lacks a part"),
        ("a broken index", "index.json"),
        ("an index of texts", "no image"),
        ("a huge index", "larger"),
        ("no tar", "no tar archive"),
        ("half a tar", "damaged|lacks"),
        ("a config outside", "does not hold"),
        ("a link in a circle", "does not hold"),
    ],
)
def test_a_faulty_archive_is_refused(archive, other, tmp_path, fault, message):
    """Each fault has its message, and no name appears in the store."""
    descriptor, path = archive
    files, links = members(path), []
    if fault == "no documents":
        files = {"hello": b"world"}
    elif fault == "a blob under a wrong name":
        files[f"blobs/sha256/{'0' * 64}"] = b"x"
    elif fault == "a blob with no digest":
        files["blobs/sha256/../sha256/xyz"] = b"x"
    elif fault == "a missing layer":
        del files[json.loads(files["manifest.json"])[0]["Layers"][0]]
    elif fault == "a missing manifest":
        del files[f"blobs/sha256/{descriptor.digest.hex}"]
    elif fault == "a broken index":
        files["index.json"] = b"{]"
    elif fault == "an index of texts":
        document = json.loads(files["index.json"])
        document["manifests"][0]["mediaType"] = "text/plain"
        files["index.json"] = json.dumps(document).encode()
    elif fault == "a huge index":
        files["index.json"] = b" " * (5 << 20)
    elif fault in ("a config outside", "a link in a circle"):
        config = "../../etc/passwd" if fault == "a config outside" else "round"
        links = [("round", "about"), ("about", "round")]
        files = {"manifest.json": json.dumps([{"Config": config, "Layers": []}]).encode()}
    write(path, files, links)
    if fault == "no tar":
        path.write_bytes(b"hello" * 1000)
    elif fault == "half a tar":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(HostileInput, match=message):
        load(other, path)
    assert other.images() == ()


def header(kind, size=0):
    """Return one header of a tar."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (header(tarfile.XHDTYPE, 8 << 30) + b"x" * 512, "extended header of 8589934592 bytes"),
        (header(tarfile.GNUTYPE_LONGNAME, 8 << 30) + b"x" * 512, "extended header"),
        ((header(tarfile.GNUTYPE_LONGNAME, 2) + b"a\0".ljust(512, b"\0")) * 2000, "in a row"),
        (header(tarfile.GNUTYPE_SPARSE), "sparse"),
    ],
    ids=["pax", "long name", "chain", "sparse"],
)
def test_an_archive_cannot_claim_memory_or_disk(other, tmp_path, data, fault):
    """What a header claims is refused before tarfile acts on it."""
    (tmp_path / "x.tar").write_bytes(data + b"\0" * 1024)
    with pytest.raises(ManifestError, match=fault):
        load(other, tmp_path / "x.tar")
    assert list(other.blobs) == []


def test_a_path_outside_is_never_written(archive, other, tmp_path):
    """Whatever an archive calls its files, they become blobs and nothing else."""
    _, path = archive
    files = members(path) | {"../../evil": b"evil", "/evil": b"evil"}
    write(path, files)
    load(other, path)
    assert not list(tmp_path.rglob("evil"))


def test_a_file_that_is_not_there_is_named(store, tmp_path):
    """The error names the path."""
    with pytest.raises(StoreError, match=r"none\.tar"):
        load(store, tmp_path / "none.tar")
