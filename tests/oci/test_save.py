import io
import json
import tarfile

import pytest

from torchship.digest import Digest
from torchship.errors import BlobDamaged, StoreError
from torchship.oci.assemble import index
from torchship.oci.image import read_one
from torchship.oci.load import load
from torchship.oci.reference import Reference
from torchship.oci.save import save
from torchship.platform import Platform

NAMES = [Reference.parse("mnist:v0.1"), Reference.parse("localhost:5000/me/x")]


def saved(store, descriptor, **options):
    """Return the archive's bytes, and its files by path."""
    out = io.BytesIO()
    save(store, descriptor, out, **options)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue()), mode="r:") as archive:
        members = [member for member in archive if not member.isdir()]
        files = {member.name: archive.extractfile(member).read() for member in members}
    return out.getvalue(), files


def test_the_archive_is_an_oci_layout_and_a_docker_archive(store, image):
    """index.json and manifest.json both lead to the same blobs, each of which is there once."""
    descriptor = image()
    _, files = saved(store, descriptor, names=NAMES)
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    entries = json.loads(files["index.json"])["manifests"]
    assert {entry["annotations"]["io.containerd.image.name"] for entry in entries} == {
        "docker.io/library/mnist:v0.1",
        "localhost:5000/me/x:latest",
    }
    assert {entry["digest"] for entry in entries} == {str(descriptor.digest)}
    (docker,) = json.loads(files["manifest.json"])
    found = read_one(store, descriptor)
    assert files[docker["Config"]] == found.raw_config
    assert [Digest.of(files[path]) for path in docker["Layers"]] == [
        layer.digest for layer in found.layers
    ]
    assert set(docker["RepoTags"]) == {str(name) for name in NAMES}
    assert len(files) == 3 + 1 + 1 + 2


def test_every_folder_has_an_entry_before_what_is_in_it(store, image):
    """skopeo, unpacking as an ordinary user, may chown no folder that it has to make by itself."""
    archive, _ = saved(store, image())
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as members:
        seen = set()
        for member in members:
            parent = member.name.rpartition("/")[0]
            assert not parent or parent in seen
            seen |= {member.name} if member.isdir() else set()


def test_two_archives_of_an_image_are_the_same_bytes(store, image):
    """The order of the names does not count, nor does the moment."""
    descriptor = image()
    assert (
        saved(store, descriptor, names=NAMES)[0] == saved(store, descriptor, names=NAMES[::-1])[0]
    )


def test_an_index_is_saved_with_all_its_platforms(store, image):
    """OCI tools get both; an old Docker gets the one that is asked for."""
    amd64 = image(b"1")
    arm64 = image(b"2", Platform("linux", "arm64"))
    both = index(store, [amd64, arm64])
    _, files = saved(store, both, platform=Platform("linux", "arm64"))
    for descriptor in (both, amd64, arm64):
        assert f"blobs/sha256/{descriptor.digest.hex}" in files
    (docker,) = json.loads(files["manifest.json"])
    assert Digest.of(files[docker["Config"]]) == read_one(store, arm64).config.digest
    assert docker["RepoTags"] == []
    with pytest.raises(StoreError, match="linux/arm64"):
        save(store, amd64, io.BytesIO(), platform=Platform("linux", "arm64"))


def test_an_index_of_which_one_platform_was_pulled_is_saved_with_that_one(store, image, tmp_path):
    """The other's documents are not in the store; the index keeps its digest."""
    amd64, arm64 = image(b"1"), image(b"2", Platform("linux", "arm64"))
    both = index(store, [amd64, arm64])
    store.blobs.remove(arm64.digest)
    _, files = saved(store, both, names=NAMES)
    assert f"blobs/sha256/{both.digest.hex}" in files
    assert f"blobs/sha256/{amd64.digest.hex}" in files
    assert f"blobs/sha256/{arm64.digest.hex}" not in files
    (tmp_path / "x.tar").write_bytes(saved(store, both)[0])
    assert load(store, tmp_path / "x.tar")[0].descriptor.digest == both.digest
    store.blobs.remove(amd64.digest)
    with pytest.raises(StoreError, match="none of the images"):
        saved(store, both)


def test_layers_that_an_engine_has_can_be_left_out(store, image):
    """manifest.json still names them."""
    descriptor = image()
    first = read_one(store, descriptor).layers[0].digest
    _, files = saved(store, descriptor, omit=[first])
    path = f"blobs/sha256/{first.hex}"
    assert path not in files
    assert path in json.loads(files["manifest.json"])[0]["Layers"]


def test_a_file_appears_only_when_it_is_whole(store, image, tmp_path):
    """A damaged blob is an error, and no archive with it comes into being."""
    descriptor = image()
    out = tmp_path / "out" / "image.tar"
    out.parent.mkdir()
    save(store, descriptor, out)
    whole = out.read_bytes()
    layer = read_one(store, descriptor).layers[0]
    store.blobs.path(layer.digest).write_bytes(b"x" * layer.size)
    with pytest.raises(BlobDamaged):
        save(store, descriptor, out)
    assert out.read_bytes() == whole
    assert list(out.parent.iterdir()) == [out]


def test_a_place_that_cannot_be_written_is_named(store, image, tmp_path):
    """The error is about the archive, not about the store."""
    with pytest.raises(StoreError, match=r"none/x\.tar cannot be written") as caught:
        save(store, image(), tmp_path / "none" / "x.tar")
    assert "a folder that is there" in caught.value.hint
