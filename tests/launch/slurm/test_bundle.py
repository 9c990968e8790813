"""An OCI bundle, as the runtime specification has it."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.launch.test_job import IMAGE

from torchship.launch.slurm import bundle
from torchship.launch.slurm.bundle import Bind, config


@pytest.fixture
def root(tmp_path) -> Path:
    """Give an image's tree with a working directory, and a home that is a symlink."""
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace/main.py").write_bytes(b"x" * 100)
    (tmp_path / "home").symlink_to("/etc")
    return tmp_path


def test_parents_are_mounted_before_what_stands_below_them(root):
    """A mount would hide what was mounted below it; devices keep their nature, others lose it."""
    binds = (
        Bind(source=Path("/a"), target="/output/deep"),
        Bind(source=Path("/b"), target="/output"),
        Bind(source=Path("/dev/nvidia0"), target="/dev/nvidia0", device=True),
    )
    document = json.loads(config(IMAGE, root, binds, shared_memory=1 << 20))
    mounts = {mount["destination"]: mount["options"] for mount in document["mounts"]}
    places = list(mounts)
    assert places.index("/output") < places.index("/output/deep")
    assert places.index("/dev") < places.index("/dev/nvidia0")
    assert "nodev" in mounts["/output"]
    assert "nodev" not in mounts["/dev/nvidia0"]
    assert f"size={1 << 20}" in mounts["/dev/shm"]


def test_the_image_is_read_only_and_its_working_directory_a_copy(root, monkeypatch):
    """What may be written to is the container's own, unless it is large."""
    image = replace(IMAGE, workdir="/workspace", environment={"HOME": "/home"})

    def copied() -> list[str]:
        document = json.loads(config(image, root, (), shared_memory=None))
        assert document["root"] == {"path": "rootfs", "readonly": True}
        return [
            mount["destination"] for mount in document["mounts"] if "tmpcopyup" in mount["options"]
        ]

    assert copied() == ["/workspace"]
    monkeypatch.setattr(bundle, "_SMALL", 99)
    assert copied() == []


def test_the_program_has_the_rights_of_its_user(root):
    """Root inside is the job's user, without capabilities that reach outside, nor new ones."""
    document = json.loads(config(IMAGE, root, (), shared_memory=None))
    process = document["process"]
    assert process["noNewPrivileges"]
    assert process["capabilities"]["bounding"] == ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER"]
    assert {"type": "user"} in document["linux"]["namespaces"]
    assert {"type": "network"} not in document["linux"]["namespaces"]


def test_a_way_up_is_no_place_of_the_image(root, tmp_path):
    """A HOME of `/../x`, which an image may set, has no folder of this machine looked through."""
    (tmp_path / "host").mkdir()
    assert not bundle.writable(root, f"/../{tmp_path.name}/host")
    assert bundle.writable(root, "/workspace")
