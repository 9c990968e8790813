"""What the command line says of mounts."""

import pytest

from torchship.engines.request import Mount
from torchship.errors import UsageError


@pytest.mark.parametrize(("mode", "read_only"), [("", False), (":ro", True), (":rw", False)])
def test_a_mount_is_source_target_and_mode(tmp_path, mode, read_only):
    """As Docker's -v."""
    found = Mount.parse(f"{tmp_path}:/data{mode}")
    assert found == Mount(source=tmp_path, target="/data", read_only=read_only)


def test_a_name_that_begins_like_the_kernels_is_another(tmp_path):
    """Only what is below /proc and /sys, and /dev itself, is the kernel's."""
    for target in ("/procs", "/data/sys", "/dev/data", "/dev\n"):
        assert Mount.parse(f"{tmp_path}:{target}").target == target


def test_a_relative_source_starts_at_the_working_directory(tmp_path, monkeypatch):
    """Docker takes it for the name of a volume, which torchship has none of."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Mount.parse("data:/data").source == tmp_path / "data"


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "/tmp", "/tmp:data", "/tmp:/data:wo", "/tmp:/a/../b", "/tmp:/", "/no/such:/x"),
        *("/tmp:/proc", "/tmp://proc/x", "/tmp:/sys/./a", "/tmp:/dev/"),
    ],
)
def test_anything_else_is_a_usage_error(text):
    """A missing source as well: Docker would make a folder for a mistyped path."""
    with pytest.raises(UsageError):
        Mount.parse(text)
