"""The run user's name on a published base."""

from torchship.digest import Digest
from torchship.layers.layer import key
from torchship.layers.users import UsersRecipe

BASE = Digest.of(b"base")
ROOT = b"root:x:0:0:root:/root:/bin/bash"


def test_the_user_is_added_to_those_of_the_base(cook):
    """The base's own rows stay as they are, also where the last one has no end."""
    made = cook(UsersRecipe(base=BASE, passwd=ROOT, group=b"root:x:0:\n"))
    assert made.read("etc/passwd").splitlines() == [
        ROOT,
        b"user:*:1000:1000::/home/user:/bin/bash",
    ]
    assert made.read("etc/group") == b"root:x:0:\nuser:*:1000:\n"


def test_a_base_that_names_the_number_keeps_its_name(cook):
    """Ubuntu has a user 1000; two names of one number would be none too many for some."""
    taken = b"ubuntu:x:1000:1000::/home/ubuntu:/bin/bash\n"
    made = cook(UsersRecipe(base=BASE, passwd=taken, group=b"x:x:1000:\n"))
    assert made.read("etc/passwd") == taken
    assert made.read("etc/group") == b"x:x:1000:\n"


def test_what_is_no_file_stays_as_it_is(cook):
    """A link is not replaced: what it leads to is the base's own affair."""
    assert list(cook(UsersRecipe(base=BASE)).members) == ["etc"]


def test_a_base_without_users_gets_the_usual_ones(cook):
    """Root has a name then, too."""
    made = cook(UsersRecipe(base=BASE, passwd=b"", group=b""))
    assert made.read("etc/passwd").startswith(b"root:*:0:0:")
    assert made.read("etc/group").endswith(b"user:*:1000:\n")


def test_the_layer_follows_from_the_base(cook):
    """Its key is known before a byte of the base is read."""
    assert key(UsersRecipe(base=BASE)) == key(UsersRecipe(base=BASE, passwd=ROOT, group=b""))
