import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchship.digest import Digest
from torchship.errors import InvalidReference
from torchship.oci.reference import Reference, names_registry

HEX = "ab" * 32
PINNED = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("mnist", "docker.io/library/mnist:latest", "mnist:latest"),
        ("mnist:v0.1", "docker.io/library/mnist:v0.1", "mnist:v0.1"),
        ("me/mnist:v0.1", "docker.io/me/mnist:v0.1", "me/mnist:v0.1"),
        ("docker.io/mnist", "docker.io/library/mnist:latest", "mnist:latest"),
        ("index.docker.io/me/x", "docker.io/me/x:latest", "me/x:latest"),
        ("library/mnist", "docker.io/library/mnist:latest", "mnist:latest"),
        ("my.net:2024", "docker.io/library/my.net:2024", "my.net:2024"),
        ("library/localhost:1", "docker.io/library/localhost:1", "library/localhost:1"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
        ("localhost:5000/a/b/c:T_1", "localhost:5000/a/b/c:T_1", "localhost:5000/a/b/c:T_1"),
        ("[::1]:5000/x:y", "[::1]:5000/x:y", "[::1]:5000/x:y"),
        ("HOST/x", "HOST/x:latest", "HOST/x:latest"),
        ("ghcr.io/me/a__b-c---d.e_f", "ghcr.io/me/a__b-c---d.e_f:latest", None),
        (f"mnist@{PINNED}", f"docker.io/library/mnist@{PINNED}", f"mnist@{PINNED}"),
        (f"mnist:v1@{PINNED}", f"docker.io/library/mnist:v1@{PINNED}", f"mnist:v1@{PINNED}"),
        ("x.y:80/" + "a" * 240, "x.y:80/" + "a" * 240 + ":latest", None),
    ],
)
def test_references_are_read_as_docker_reads_them(text, full, familiar):
    """Host, library/ and latest are filled in; the familiar form leaves them out again."""
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.familiar == (familiar or full)
    assert Reference.parse(reference.familiar) == reference
    assert Reference.parse(full) == reference


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        ("me/MNIST", "capital"),
        ("MNIST", "capital"),
        ("https://ghcr.io/x", "scheme"),
        ("x:", "tag"),
        ("x:-a", "tag"),
        ("x:" + "a" * 129, "tag"),
        ("x:a:b", "tag"),
        ("/x", "repository"),
        ("x/", "no repository|repository"),
        ("a//b", "repository"),
        ("a/../b", "host name|repository"),
        ("a b", "repository"),
        ("a\n", "repository"),
        ("-a", "repository"),
        ("a_", "repository"),
        ("a___b", "repository"),
        ("host.:5000/x", "host name"),
        ("host.io:0/x", "port"),
        ("host.io:99999/x", "port"),
        ("[::g]:1/x", "host name|IPv6"),
        ("[1::2::3]/x", "IPv6"),
        ("localhost:5000/", "no repository"),
        ("mnist@sha256:abc", "digest"),
        (f"mnist@sha512:{HEX}", "digest"),
        (f"mnist@{PINNED}@{PINNED}", "digest"),
        (HEX, "digest"),
        (PINNED, "a digest alone"),
        ("127.0.0.1:5731", "a registry alone"),
        ("localhost:5000", "a registry alone"),
        ("hub.docker.com/r/me/x", "a page about an image"),
        ("host.io:" + "9" * 5000 + "/x", "host name"),
        ("x.y/" + "a" * 252, "longer"),
    ],
)
def test_what_is_no_reference_is_refused_with_the_reason(text, fault):
    """The message names the text and what is wrong with it."""
    with pytest.raises(InvalidReference, match=fault) as caught:
        Reference.parse(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Bad/Name", "write bad/name"),
        ("Name", "write name"),
        ("127.0.0.1:5731", "write 127.0.0.1:5731/NAME"),
        ("hub.docker.com/r/me/x", "write me/x"),
        ("https://hub.docker.com/r/me/x/tags?page=1", "write me/x"),
        ("https://hub.docker.com/_/python", "write python"),
    ],
)
def test_what_was_meant_is_said(text, hint):
    """What the message says to write is the whole of what was meant."""
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("mnist", False),
        ("mnist:v0.1", False),
        ("me/mnist:v0.1", False),
        (f"me/mnist@{PINNED}", False),
        ("docker.io:v1", False),
        ("docker.io/me/mnist", True),
        ("index.docker.io/me/mnist:v0.1", True),
        ("docker.iomnist/x", True),
        ("localhost/x", True),
        ("HOST/x", True),
        ("[::1]:5000/x", True),
    ],
)
def test_a_reference_says_of_which_registry_it_is_or_leaves_it_out(text, names):
    """Docker Hub's own name counts as one: whoever wrote it meant it."""
    assert names_registry(text) is names


def test_a_huge_text_is_not_repeated_whole():
    """An error message stays readable whatever was typed."""
    with pytest.raises(InvalidReference) as caught:
        Reference.parse("A" * 100_000)
    assert len(caught.value.message) < 2000


def test_pinning_drops_the_tag():
    """A reference by digest names one manifest and nothing that moves."""
    pinned = Reference.parse("me/x:v1").with_digest(Digest(HEX))
    assert str(pinned) == f"docker.io/me/x@{PINNED}"
    assert str(pinned.with_tag("v2")) == "docker.io/me/x:v2"


@given(st.text(max_size=80))
def test_parsing_ends_in_a_reference_or_in_its_own_error(text):
    """Whatever is typed is read, stably, or refused: nothing else comes out."""
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference
