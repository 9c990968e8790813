"""Failures for want of a network, by what programs print of them."""

import pytest

from torchship.runs.offline import missed

URLLIB = b"urllib.error.URLError: <urlopen error [Errno %d] %b>\n"


@pytest.mark.parametrize(
    "said",
    [
        URLLIB % (-3, b"Temporary failure in name resolution"),
        URLLIB % (-2, b"Name or service not known"),
        URLLIB % (101, b"Network is unreachable"),
        b"curl: (6) Could not resolve host: data.example\n",
    ],
)
def test_what_programs_print_is_known(tmp_path, said):
    """Wherever it stands in the end of what a program printed."""
    log = tmp_path / "stdout.log"
    log.write_bytes(b"epoch 1\n" * 100_000 + said + b"  at exit: goodbye\n")
    assert missed(log)


@pytest.mark.parametrize("said", [b"", b"RuntimeError: shapes do not fit\n", b"\xff\0" * 9])
def test_other_failures_are_no_want_of_a_network(tmp_path, said):
    """Nor is one that was printed long before the end, and survived; or none at all."""
    log = tmp_path / "stdout.log"
    assert not missed(log)
    log.write_bytes(URLLIB % (101, b"Network is unreachable") + b"epoch 1\n" * 100_000 + said)
    assert not missed(log)
