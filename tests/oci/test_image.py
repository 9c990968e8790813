import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torchship.digest import Descriptor, Digest
from torchship.errors import ImageNotFound, ManifestError, TorchshipError
from torchship.oci import mediatypes
from torchship.oci.assemble import assemble, index
from torchship.oci.image import manifests, read_image, read_one
from torchship.platform import Platform

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def test_an_image_is_read_as_it_was_assembled(store, layer, project):
    """Command, environment, user, working directory, labels and layers come back."""
    layers = [layer(b"1"), layer(b"2")]
    descriptor = assemble(store, project=project, platform=AMD64, layers=layers, environment={})
    image = read_image(store, descriptor, AMD64)
    assert image.command == ("python", "main.py")
    assert image.entrypoint == ()
    assert image.environment["PATH"].startswith("/opt/venv/bin:")
    assert image.environment["LANG"] == "C.UTF-8"
    assert image.environment["TORCHSHIP_OUTPUT"] == "/output"
    assert (image.user, image.workdir) == ("1000:1000", "/workspace")
    assert image.labels["org.opencontainers.image.title"] == "mnist"
    assert image.created == "1970-01-01T00:00:00Z"
    assert [(got.digest, got.diff_id, got.unpacked_size, got.title) for got in image.layers] == [
        (made.digest, made.diff_id, made.unpacked_size, made.title) for made in layers
    ]
    assert Digest.of(image.raw_manifest) == descriptor.digest
    assert Digest.of(image.raw_config) == image.config.digest


def test_an_index_gives_each_platform_its_image(store, image):
    """The platform chooses; one that is not there is named with those that are."""
    first, second = image(b"1", AMD64), image(b"2", ARM64)
    both = index(store, [first, second])
    assert read_image(store, both, ARM64).descriptor.digest == second.digest
    assert [found.digest for found in manifests(store, both)] == [first.digest, second.digest]
    with pytest.raises(ImageNotFound, match=r"only for linux/amd64$") as caught:
        read_image(store, first, ARM64)
    assert "--platform linux/arm64" in caught.value.hint


def test_an_index_gives_each_variant_its_image(store, layer, project):
    """Without a name the first is read, by any tool; a name is looked for, and told if unknown."""
    made = [
        assemble(
            store, project=project, platform=AMD64, layers=[layer(name.encode())], variant=name
        )
        for name in ("cpu", "cu130")
    ]
    both = index(store, made)
    assert read_image(store, both, AMD64).variant == "cpu"
    for name, descriptor in zip(("cpu", "cu130"), made, strict=True):
        image = read_image(store, both, AMD64, name)
        assert (image.descriptor.digest, image.variant) == (descriptor.digest, name)
        assert image.labels["dev.torchship.variant"] == name
    with pytest.raises(ImageNotFound, match="no variant cu118 for linux/amd64: it has cpu, cu130"):
        read_image(store, both, AMD64, "cu118")


def test_an_image_that_stands_alone_tells_its_variant(store, layer, project, image):
    """Outside its index the config says it; an image without variants has none to ask for."""
    cpu = assemble(store, project=project, platform=AMD64, layers=[layer(b"1")], variant="cpu")
    alone = Descriptor(media_type=cpu.media_type, digest=cpu.digest, size=cpu.size)
    assert read_image(store, alone, AMD64, "cpu").variant == "cpu"
    with pytest.raises(ImageNotFound, match="no variant cu130 for linux/amd64: it has cpu"):
        read_image(store, alone, AMD64, "cu130")
    with pytest.raises(ImageNotFound, match="no variant cpu for linux/amd64: it has no variants"):
        read_image(store, image(b"1", AMD64), AMD64, "cpu")


def test_an_index_without_platforms_or_in_another_index_is_understood(store, image):
    """The config has the last word; indexes nest; an attestation is no image."""
    first, second = image(b"1", AMD64), image(b"2", ARM64)
    bare = Descriptor(media_type=second.media_type, digest=second.digest, size=second.size)
    attestation = {**first.as_json(), "platform": {"os": "unknown", "architecture": "unknown"}}
    inner = put_index(store, [attestation, first.as_json(), bare.as_json()])
    outer = index(store, [inner, inner])
    assert read_image(store, outer, ARM64).descriptor.digest == second.digest
    assert len(manifests(store, outer)) == 2


def put_index(store, entries, **more):
    """Put an index of just these entries, whatever they are."""
    document = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": entries}
    return store.put(json.dumps(document | more).encode(), mediatypes.OCI_INDEX)


def change(store, descriptor, *, top=None, process=None, **fields):
    """Write an image again with other fields; None takes one away."""
    image = read_one(store, descriptor)
    settings = json.loads(image.raw_config) | (top or {})
    settings["config"] |= process or {}
    manifest = json.loads(image.raw_manifest)
    put = store.put(json.dumps(settings).encode(), image.config.media_type)
    manifest["config"] |= {"digest": str(put.digest), "size": put.size}
    manifest |= fields
    manifest = {key: value for key, value in manifest.items() if value is not None}
    return store.put(json.dumps(manifest).encode(), descriptor.media_type)


DESCRIPTOR = {"mediaType": mediatypes.OCI_GZIP, "digest": "sha256:" + "0" * 64, "size": 1}


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"schemaVersion": 1}, "schemaVersion"),
        ({"mediaType": mediatypes.DOCKER_MANIFEST}, "calls itself"),
        ({"manifests": []}, "two ways"),
        ({"layers": None}, "layers"),
        ({"layers": []}, "0 layers and its config names 2"),
        ({"layers": [DESCRIPTOR]}, "1 layers and its config names 2"),
        ({"layers": [DESCRIPTOR, {**DESCRIPTOR, "size": -1}]}, r"layers\[.*size"),
        ({"layers": [DESCRIPTOR, {**DESCRIPTOR, "size": 1 << 64}]}, "size|integer"),
        ({"layers": [DESCRIPTOR, {**DESCRIPTOR, "size": 1.5}]}, "size"),
        ({"layers": [DESCRIPTOR, {**DESCRIPTOR, "digest": "md5:1"}]}, r"layers\[1\].*md5"),
        ({"layers": [DESCRIPTOR, {**DESCRIPTOR, "digest": "sha256:../x"}]}, r"layers\[1\]"),
        ({"layers": [DESCRIPTOR, {**DESCRIPTOR, "mediaType": "x/y"}]}, "does not read"),
        ({"layers": [DESCRIPTOR, {**DESCRIPTOR, "mediaType": "nonsense"}]}, "mediaType"),
        ({"config": {**DESCRIPTOR, "mediaType": "x/empty"}}, "artifact"),
        ({"config": 1}, "config"),
        ({"annotations": {"a": 1}}, "annotations"),
    ],
)
def test_a_manifest_that_lies_is_refused(store, image, fields, fault):
    """Each message says where in the manifest the fault is."""
    with pytest.raises(ManifestError, match=fault):
        read_image(store, change(store, image(), **fields), AMD64)


@pytest.mark.parametrize(
    ("config", "process", "fault"),
    [
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}, {}, "2 layers"),
        ({"rootfs": {"type": "layers", "diff_ids": ["x", "y"]}}, {}, r"diff_ids\[0\]"),
        ({"rootfs": {"type": "magic", "diff_ids": []}}, {}, "rootfs.type"),
        ({"rootfs": None}, {}, "rootfs"),
        ({"architecture": 5}, {}, "architecture"),
        ({}, {"Cmd": "python main.py"}, "Cmd"),
        ({}, {"Cmd": ["a\0b"]}, "zero byte"),
        ({}, {"Env": {"A": "B"}}, "Env"),
        ({}, {"WorkingDir": "../.."}, "absolute"),
        ({}, {"Labels": {"a": None}}, "Labels"),
    ],
)
def test_a_config_that_lies_is_refused(store, image, config, process, fault):
    """A config of the wrong types, or other layers than its manifest, starts nothing."""
    with pytest.raises(ManifestError, match=fault):
        read_image(store, change(store, image(), top=config, process=process), AMD64)


def test_a_sparse_config_has_defaults(store, image):
    """Null and missing fields, which other builders write, are what the specification says."""
    empty = dict.fromkeys(("Cmd", "Env", "Entrypoint", "Labels", "WorkingDir", "User"))
    image = read_image(store, change(store, image(), process=empty), AMD64)
    assert (image.command, image.environment, image.workdir, image.user) == ((), {}, "/", "")


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("/workspace/", "/workspace"),
        ("//a//./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/" + "../" * 12 + "usr", "/usr"),
        ("/..", "/"),
    ],
)
def test_a_working_directory_has_no_way_up(store, image, stated, expected):
    """It is cleaned as Docker cleans it, so that no engine is led out of the image by it."""
    found = read_image(store, change(store, image(), process={"WorkingDir": stated}), AMD64)
    assert found.workdir == expected


def test_other_compressions_are_read(store, image):
    """Plain and zstd layers, of OCI and Docker, are layers too; an unknown size is 0."""
    kinds = [mediatypes.OCI_ZSTD, mediatypes.DOCKER_TAR]
    layers = [{**DESCRIPTOR, "mediaType": kind} for kind in kinds]
    found = read_image(store, change(store, image(), layers=layers), AMD64)
    assert [layer.media_type for layer in found.layers] == kinds
    assert [layer.unpacked_size for layer in found.layers] == [0, 0]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"schemaVersion":2,"manifests":' + b"[" * 100_000,
        b'{"schemaVersion":2,"manifests":[{"a":' * 2000,
        b"\xff\xfe{}",
        b'{"schemaVersion":2,"manifests":[],"layers":[]}',
    ],
)
def test_nonsense_in_the_place_of_an_index_is_refused(store, raw):
    """Broken, deep or ambiguous JSON is an error of ours, not a crash."""
    with pytest.raises(ManifestError):
        read_image(store, store.put(raw, mediatypes.OCI_INDEX), AMD64)


def test_an_index_of_endless_manifests_is_refused(store, image):
    """Reading ends however many entries an index has."""
    entries = [
        {**DESCRIPTOR, "mediaType": mediatypes.OCI_MANIFEST, "digest": f"sha256:{n:064x}"}
        for n in range(2000)
    ]
    with pytest.raises(ManifestError, match="more than"):
        manifests(store, put_index(store, entries))


def test_what_is_no_image_is_refused(store):
    """A descriptor of another media type is not even read."""
    with pytest.raises(ManifestError, match="text/plain"):
        read_image(store, store.put(b"x", "text/plain"), AMD64)


def test_an_artifact_is_told_as_one_and_its_type_is_quoted(store, image):
    """The type is a stranger's text, whatever it holds."""
    config = store.put(b"{}", mediatypes.OCI_EMPTY).as_json()
    descriptor = change(store, image(), config=config, artifactType="a\x1b[2J\nreproduced")
    with pytest.raises(ManifestError, match="an artifact of type") as caught:
        read_image(store, descriptor, AMD64)
    assert caught.value.message.isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "annotations", "subject"]),
    JSON,
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_json_in_any_field_is_read_or_refused(store, image, field, value):
    """A manifest with a field of any type ends in an image or in an error of ours."""
    descriptor = change(store, image(), **{field: value})
    with contextlib.suppress(TorchshipError):
        read_image(store, descriptor, AMD64)
