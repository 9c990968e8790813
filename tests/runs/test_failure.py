"""What a failed program lacked, by what it printed last."""

import pytest

from torchship.runs.failure import hint

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
    assert "--network" in hint(log, network=False)
    assert hint(log, network=True) is None


@pytest.mark.parametrize("said", [b"", b"RuntimeError: shapes do not fit\n", b"\xff\0" * 9])
def test_other_failures_are_no_want_of_a_network(tmp_path, said):
    """Nor is one that was printed long before the end, and survived; or none at all."""
    log = tmp_path / "stdout.log"
    assert hint(log, network=False) is None
    log.write_bytes(URLLIB % (101, b"Network is unreachable") + b"epoch 1\n" * 100_000 + said)
    assert hint(log, network=False) is None


@pytest.mark.parametrize(
    ("said", "named"),
    [
        (b"ModuleNotFoundError: No module named 'torchvision'\n", "torchvision"),
        (b"ModuleNotFoundError: No module named 'sklearn.svm'\n", "sklearn"),
        (b"caught ModuleNotFoundError: No module named 'x', going on\n", None),
        (b"ModuleNotFoundError: No module named '\x1b[2J'\n", None),
        (
            b"ModuleNotFoundError: No module named 'tomllib'\n\nDuring handling of ...\n"
            b"ModuleNotFoundError: No module named 'tomli'\n",
            "tomli",
        ),
        (b"ModuleNotFoundError: No module named 'wandb'\nValueError: bad lr\n", None),
    ],
)
def test_a_module_that_is_not_in_the_image_is_named(tmp_path, said, named):
    """Only where Python's own traceback ends so."""
    log = tmp_path / "stdout.log"
    log.write_bytes(b"Traceback (most recent call last):\n  ...\n" + said)
    for network in (False, True):
        found = hint(log, network=network)
        assert found is None if named is None else f"no module {named} in the image" in found
