"""The ground that everything stands on: digests, canonical JSON, platforms, errors."""

import inspect
import io
import pickle

import pytest

from torchship import canonical, errors
from torchship.digest import CHUNK, Descriptor, Digest, chunks
from torchship.platform import Platform

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_digest_is_read_and_written_in_the_oci_form():
    """``sha256:<hex>`` survives a round trip."""
    assert str(Digest.parse(f"sha256:{EMPTY}")) == f"sha256:{EMPTY}"
    assert Digest.of(b"") == Digest(EMPTY)


@pytest.mark.parametrize(
    "text",
    ["", EMPTY, "sha256:", f"sha512:{EMPTY}", f"sha256:{EMPTY[:-1]}", f"sha256:{EMPTY.upper()}"],
)
def test_what_is_no_digest_is_refused(text):
    """Other algorithms, lengths and capitals are not digests."""
    with pytest.raises(errors.InvalidDigest):
        Digest.parse(text)


def test_a_stream_a_file_and_bytes_have_one_digest(tmp_path):
    """How the bytes came does not matter."""
    data = b"x" * (CHUNK + 1)
    (tmp_path / "file").write_bytes(data)
    expected = Digest.of(data)
    assert Digest.of_stream(io.BytesIO(data)) == expected
    assert Digest.of_file(tmp_path / "file") == expected


def test_chunks_stop_where_they_are_told():
    """No byte beyond the size that was asked for is read."""
    stream = io.BytesIO(b"abcdef")
    assert b"".join(chunks(stream, 4)) == b"abcd"
    assert b"".join(chunks(stream)) == b"ef"


def test_a_descriptor_leaves_out_what_it_has_not():
    """Absent fields are absent, as the image specification wants them."""
    found = Descriptor(media_type="text/plain", digest=Digest(EMPTY), size=0).as_json()
    assert found == {"mediaType": "text/plain", "digest": f"sha256:{EMPTY}", "size": 0}


def test_canonical_json_has_one_spelling():
    """Order of insertion does not show, nor does white space."""
    assert canonical.encode({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()
    with pytest.raises(ValueError, match="Out of range"):
        canonical.encode(float("nan"))


def test_a_platform_is_known_by_every_ecosystems_name():
    """The names that uname gives are taken for Go's."""
    assert Platform.parse("linux/x86_64") == Platform.parse("linux/amd64")
    arm = Platform.parse("linux/arm64")
    assert (arm.machine, arm.triplet, arm.debian) == ("aarch64", "aarch64-linux-gnu", "arm64")


@pytest.mark.parametrize("text", ["", "linux", "windows/amd64", "linux/riscv64", "amd64"])
def test_other_platforms_are_a_usage_error(text):
    """The message lists what there is."""
    with pytest.raises(errors.UsageError, match="linux/amd64, linux/arm64"):
        Platform.parse(text)


def test_an_error_keeps_its_hint_between_processes():
    """Layers are made in worker processes; what they say must arrive whole."""
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if kind is errors.RegistryError:
            continue  # has further fields, and its own test
        raised = kind("a", hint="b")
        back = pickle.loads(pickle.dumps(raised))
        assert (type(back), back.message, back.hint) == (kind, "a", "b")


def test_every_error_stands_in_the_tree():
    """The tree at the top of the module is complete."""
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        assert issubclass(kind, errors.TorchshipError)
        assert name in (errors.__doc__ or "")
