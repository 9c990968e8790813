import errno
import os
from pathlib import Path

import pytest

from torchship.errors import StoreError
from torchship.oci import durable


def test_a_file_is_replaced_at_one_stroke(tmp_path):
    """A reader that has the old file open keeps it whole; the new one is there for the next."""
    target = tmp_path / "target"
    durable.write(target, b"old", tmp_path)
    with target.open("rb") as reader:
        durable.write(target, b"new", tmp_path)
        assert reader.read() == b"old"
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_large_file_is_flushed_as_it_grows_and_whole_at_the_end(tmp_path):
    """What is flushed beside the writing changes nothing of what is there in the end."""
    pieces = [bytes([number]) * (3 << 20) for number in range(15)]
    with durable.Temporary(tmp_path) as file:
        for piece in pieces:
            file.write(piece)
        file.publish(tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"".join(pieces)


def test_a_fault_of_the_disk_is_not_lost_beside_the_writing():
    """A flush that failed in the background fails the file."""
    reader, writer = os.pipe()  # which no flush can bring to a disk
    flush = durable._Flush(writer)
    with pytest.raises(OSError, match="Invalid argument"):
        flush.finish()
    os.close(reader)
    os.close(writer)


def test_leaving_early_keeps_what_was_there(tmp_path):
    """An exception on the way changes nothing."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with pytest.raises(KeyError), durable.Temporary(tmp_path) as file:
        file.write(b"half")
        raise KeyError
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("number", "message", "hint"),
    [
        (errno.ENOSPC, "no space is left to write /some/file", "torchship prune"),
        (errno.EDQUOT, "no space is left to write /some/file", "torchship prune"),
        (errno.EROFS, "/some/file cannot be written: read-only", "TORCHSHIP_HOME"),
        (errno.EACCES, "/some/file cannot be written: permission", "TORCHSHIP_HOME"),
    ],
)
def test_what_the_system_says_becomes_one_clear_sentence(tmp_path, number, message, hint):
    """The path and the way out are in the error."""
    with pytest.raises(StoreError, match=message) as caught, durable.writing(Path("/some/file")):
        raise OSError(number, os.strerror(number))
    assert hint in caught.value.hint


def test_sweeping_gives_back_what_the_dead_left_and_nothing_else(tmp_path):
    """Folders and files that are being written stay."""
    (tmp_path / "dead").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    with durable.Temporary(tmp_path) as alive:
        alive.write(b"x")
        assert durable.sweep(tmp_path) == 5
        assert {path.name for path in tmp_path.iterdir()} == {"folder", alive.path.name}
    assert durable.sweep(tmp_path / "none") == 0
