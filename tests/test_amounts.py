import pytest

from torchship.amounts import counted, listed, size


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (192_345_678, "192 MB"),
        (3_000_000_000, "3.0 GB"),
        (5e15, "5000 TB"),
    ],
)
def test_sizes(count, words):
    """Bytes are told in powers of 1000, with two or three digits that matter."""
    assert size(count) == words


def test_one_is_not_many():
    """Of more than one thing there is a plural."""
    assert (counted(0, "run"), counted(1, "run"), counted(5, "run")) == (
        "0 runs",
        "1 run",
        "5 runs",
    )
    assert (listed("seed", [1]), listed("seed", [1, 2])) == ("seed 1", "seeds 1, 2")
