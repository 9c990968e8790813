"""What Docker and Podman say of the images that they hold, read."""

from types import SimpleNamespace

from torchship.digest import Digest
from torchship.engines.held import Held, free, parse

OURS = Held(id="sha256:1", tags=frozenset({"mnist:latest"}), ours=True)
THEIRS = Held(id="sha256:2", tags=frozenset({"app:v1"}), ours=False)
IMAGE = SimpleNamespace(descriptor=SimpleNamespace(digest=Digest.of(b"")))


def test_an_image_is_told_once():
    """Asked for by its id and by its name, an image is in the answer twice; warnings are passed."""
    line = '["sha256:1",["mnist:latest"],{"dev.torchship.python":"3.11"}]\n'
    other = '["sha256:2",["app:v1"],null]\n'
    assert parse(f"{line}{line}\nWARNING: slow\n{other}") == (OURS, THEIRS)


def test_an_image_without_names_or_labels_is_a_strangers():
    """Engines write null for what is not there."""
    assert parse('["sha256:3",null,null]') == (Held(id="sha256:3", tags=frozenset(), ours=False),)


def test_a_strangers_name_stays_with_it():
    """A name that another's image has is left out; one that an earlier image of ours has is not."""
    assert free(("mnist:latest", "app:v1"), IMAGE, (OURS, THEIRS), ()) == ("mnist:latest",)


def test_the_names_of_the_image_itself_are_its_own():
    """An image that is there already keeps its names, whoever built it."""
    assert free(("app:v1",), IMAGE, (THEIRS,), {"sha256:2"}) == ("app:v1",)


def test_no_image_is_without_a_name():
    """Where no name is left it has one by its digest."""
    assert free(("app:v1",), IMAGE, (THEIRS,), ()) == (
        f"localhost/torchship:{IMAGE.descriptor.digest.short}",
    )
