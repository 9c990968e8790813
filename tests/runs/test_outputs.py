"""What a run wrote."""

import os

from torchship.digest import Digest
from torchship.runs.outputs import outputs


def test_outputs_are_hashed_without_following_links(tmp_path):
    """A link out of the output directory is not an output; neither is a pipe."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe")
    assert outputs(tmp_path) == {"sub/file": Digest.of(b"x")}


def test_a_name_that_is_not_utf8_is_spelled_out(tmp_path):
    """JSON has no words for its bytes."""
    (tmp_path / os.fsdecode(b"caf\xe9")).write_bytes(b"x")
    assert list(outputs(tmp_path)) == ["caf\\udce9"]
