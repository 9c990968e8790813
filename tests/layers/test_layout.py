"""The skeleton of an image."""

import sysconfig

from torchship.layers import layout
from torchship.layers.layer import key
from torchship.layers.layout import LayoutRecipe


def test_the_environment_links_to_the_bases_python(cook):
    """bin/python leads to the base's interpreter, and pyvenv.cfg names its home."""
    made = cook(LayoutRecipe(python="3.11.2"))
    assert made.members["opt/venv/bin/python"].linkname == "/usr/bin/python3.11"
    assert made.members["opt/venv/bin/python3.11"].linkname == "python"
    assert made.members["opt/venv/lib64"].linkname == "lib"
    settings = made.read("opt/venv/pyvenv.cfg").decode().splitlines()
    assert "home = /usr/bin" in settings
    assert "version = 3.11.2" in settings


def test_a_foreign_bases_python_may_lie_elsewhere(cook):
    """The official python images have theirs in /usr/local/bin."""
    made = cook(LayoutRecipe(python="3.12.1", interpreter="/usr/local/bin/python3.12"))
    assert made.members["opt/venv/bin/python"].linkname == "/usr/local/bin/python3.12"
    assert b"home = /usr/local/bin\n" in made.read("opt/venv/pyvenv.cfg")
    assert "opt/venv/lib/python3.12/site-packages" in made.members


def test_the_user_owns_what_the_user_writes(cook):
    """Home, output and working directory are the run user's; their parents are root's."""
    members = cook(LayoutRecipe(python="3.11.2")).members
    owned = {name for name, info in members.items() if info.uid == layout.UID}
    assert owned == {"home/user", "output", "workspace"}
    assert all(info.gid == info.uid and info.mtime == 0 for info in members.values())


def test_the_user_may_own_more(cook):
    """Directories in which nothing is baked are the run user's, too, where they are asked for."""
    members = cook(LayoutRecipe(python="3.11.2", further=("/data",))).members
    assert members["data"].isdir()
    assert (members["data"].uid, members["data"].mode) == (layout.UID, 0o755)


def test_site_packages_is_where_python_looks():
    """The template agrees with Python's own layout of a virtual environment."""
    scheme = sysconfig.get_path("purelib", "venv", vars={"base": "/opt/venv"})
    version = sysconfig.get_python_version()
    assert "/" + layout.site_packages(version) == scheme


def test_owners_follow_the_folders():
    """Only what stands inside an owned folder has its owner."""
    assert layout.owner("workspace/data/a") == layout.UID
    assert layout.owner("/workspace") == layout.UID
    assert layout.owner("workspace2/a") == 0
    assert layout.owner("home") == 0


def test_every_input_is_in_the_key():
    """Another Python is another layer."""
    recipes = [
        LayoutRecipe(python="3.11.2"),
        LayoutRecipe(python="3.11.3"),
        LayoutRecipe(python="3.11.2", interpreter="/x/python3.11"),
        LayoutRecipe(python="3.11.2", further=("/data",)),
    ]
    assert len({key(recipe) for recipe in recipes}) == 4
