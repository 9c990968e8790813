"""An image's layers as one tree."""

import os
import stat
from pathlib import Path

import pytest
from tests.integration.containers import make

from torchship.launch.slurm.rootfs import merge, tree
from torchship.oci.prune import prune
from torchship.oci.store import Store


@pytest.fixture
def layers(tmp_path):
    """Give two folders to be merged, and what merges them."""
    below, above = tmp_path / "below", tmp_path / "above"
    for folder in (below, above):
        folder.mkdir()

    def merged() -> Path:
        root = tmp_path / "root"
        root.mkdir()
        merge([below, above], root)
        return root

    return below, above, merged


def test_a_later_layer_covers_an_earlier_one(layers):
    """Files of both are there, by hard links; of one path, the later one's."""
    below, above, merged = layers
    for folder, name in ((below, "old"), (below, "both"), (above, "both"), (above, "new")):
        (folder / name).write_text(folder.name)
    root = merged()
    told = {path.name: path.read_text() for path in root.iterdir()}
    assert told == {"old": "below", "both": "above", "new": "above"}
    assert (root / "old").samefile(below / "old")


def test_whiteouts_and_opaque_folders_hide_what_is_below(layers):
    """What overlayfs would hide is not in the tree, nor is the whiteout itself."""
    below, above, merged = layers
    for name in ("gone/deep/file", "replaced/old", "kept/file"):
        (below / name).parent.mkdir(parents=True)
        (below / name).touch()
    os.mknod(above / "gone", stat.S_IFCHR, 0)
    (above / "replaced").mkdir()
    os.setxattr(above / "replaced", "user.overlay.opaque", b"y")
    (above / "replaced/new").touch()
    root = merged()
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == [
        *("kept", "kept/file", "replaced", "replaced/new")
    ]


def test_nothing_is_written_through_a_symlink(layers, tmp_path):
    """A folder of a later layer takes the place of an earlier one's symlink."""
    below, above, merged = layers
    (tmp_path / "outside").mkdir()
    (below / "out").symlink_to(tmp_path / "outside")
    (above / "out").mkdir()
    (above / "out/file").touch()
    root = merged()
    assert not list((tmp_path / "outside").iterdir())
    assert not (root / "out").is_symlink()
    assert (root / "out/file").is_file()


def test_no_mode_is_changed_through_a_symlink(layers, tmp_path):
    """A folder's mode is forgotten with the folder, when a later layer puts a symlink there."""
    below, above, merged = layers
    outside = tmp_path / "outside" / "private"
    outside.mkdir(parents=True, mode=0o700)
    (below / "out/private").mkdir(parents=True)
    (below / "out/private").chmod(0o777)
    (above / "out").symlink_to(tmp_path / "outside")
    root = merged()
    assert (root / "out").is_symlink()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o700


def test_folders_that_forbid_writing_are_filled_first(layers):
    """Modes are those of the last layer that has the folder; its owner may look into it."""
    below, above, merged = layers
    for folder, mode in ((below, 0o700), (above, 0o500)):
        (folder / "shut").mkdir()
        (folder / "shut" / folder.name).touch()
        (folder / "shut").chmod(mode)
    root = merged()
    assert sorted(path.name for path in (root / "shut").iterdir()) == ["above", "below"]
    assert stat.S_IMODE((root / "shut").stat().st_mode) == 0o500


def test_a_tree_is_made_once_and_pruned(tmp_path):
    """Every launch of an image shares its tree, which has all that something is mounted on."""
    store = Store(tmp_path / "store")
    image = make(store, "tiny:v1", "text")
    places = {"folders": ("run", "tmp"), "files": ("etc/hosts", "etc/passwd")}
    store.hold()
    root = tree(store, image.layers, **places)
    before = root.stat().st_ino
    assert tree(store, image.layers, **places).stat().st_ino == before
    assert (root / "srv/text0").read_text() == "text"
    assert (root / "run").is_dir()
    assert (root / "etc/hosts").read_bytes() == b""
    assert (root / "etc/passwd").read_bytes()
    prune(store)
    assert not root.exists()
