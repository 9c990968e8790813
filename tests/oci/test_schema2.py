import pytest

from torchship.errors import ManifestError
from torchship.oci import mediatypes
from torchship.oci.assemble import assemble, index
from torchship.oci.image import read_image
from torchship.oci.schema2 import as_docker
from torchship.platform import Platform

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def test_docker_schema_2_is_written_and_read(store, image):
    """The same config and layers in Docker's words, and back."""
    descriptor = index(store, [image(b"1", AMD64), image(b"2", ARM64)])
    docker = as_docker(store, descriptor)
    assert docker.media_type == mediatypes.DOCKER_INDEX
    assert as_docker(store, docker) == docker
    ours, theirs = read_image(store, descriptor, ARM64), read_image(store, docker, ARM64)
    assert theirs.config.digest == ours.config.digest
    assert [layer.digest for layer in theirs.layers] == [layer.digest for layer in ours.layers]
    assert {layer.media_type for layer in theirs.layers} == {mediatypes.DOCKER_GZIP}
    assert "annotations" not in theirs.raw_manifest.decode()


def test_variants_are_told_apart_in_dockers_words_too(store, layer, project):
    """The mark stays beside each manifest, where tools that do not know it pass over it."""
    made = [
        assemble(
            store, project=project, platform=AMD64, layers=[layer(name.encode())], variant=name
        )
        for name in ("cpu", "cu130")
    ]
    docker = as_docker(store, index(store, made))
    assert read_image(store, docker, AMD64).variant == "cpu"
    assert read_image(store, docker, AMD64, "cu130").variant == "cu130"


def test_what_docker_has_no_word_for_is_refused(store):
    """Only manifests and indexes are translated."""
    with pytest.raises(ManifestError, match="text/plain"):
        as_docker(store, store.put(b"x", "text/plain"))
