"""A job that is held, and what its folder may hold."""

import pytest

from torchship.errors import EngineError
from torchship.launch.slurm.held import Held
from torchship.progress import SILENT


@pytest.fixture
def held(tmp_path):
    """Give a job with one step."""
    made = Held("7", tmp_path, time_limit=None, progress=SILENT)
    made.next_step()
    yield made
    made._over.set()


@pytest.mark.parametrize(
    ("text", "status"), [(b"", None), (b"1", None), (b"0\n", 0), (b"137\n", 137)]
)
def test_a_status_counts_when_its_line_is_whole(held, tmp_path, text, status):
    """Half of a number is none."""
    (tmp_path / "step-1" / "status").write_bytes(text)
    assert held.status() == status


@pytest.mark.parametrize("text", [b"\xff\xfe\n", b"-1\n", b"0\n0\n", b"9" * 5000])
def test_what_is_no_status_is_told(held, tmp_path, text):
    """Something else in its place is one clear error."""
    (tmp_path / "step-1" / "status").write_bytes(text)
    with pytest.raises(EngineError, match="without an exit status"):
        held.status()
