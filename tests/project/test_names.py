"""Names of distributions and of wheels."""

import pytest
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from torchship.project.names import is_normalized, normalized, wheel_fault


@pytest.mark.parametrize("name", ["torch", "Ruamel.YAML", "typing__extensions", "a-._b", "Six"])
def test_names_are_normalised_as_packaging_does(name):
    """A name comes out as the library that pip uses has it."""
    assert normalized(name) == canonicalize_name(name)
    assert is_normalized(normalized(name))
    assert is_normalized(name) == (normalized(name) == name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a/b", "a b", "é", "a\n"])
def test_what_is_no_name_is_not_normalised(name):
    """What could not be a distribution's name is not taken for one."""
    assert not is_normalized(name)


@pytest.mark.parametrize(
    ("filename", "name", "version"),
    [
        ("torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", "torch", "2.13.0+cpu"),
        ("six-1.17.0-py2.py3-none-any.whl", "six", "1.17.0"),
        ("Ruamel.YAML-1.0-py3-none-any.whl", "ruamel-yaml", "1.0"),
        ("demo-1.0-2foo-py3-none-any.whl", "demo", "1.0"),
        ("demo-1.0rc1-py3-none-any.whl", "demo", "1.0rc1"),
        ("demo-1.0.0-py3-none-any.whl", "demo", "1"),
    ],
)
def test_a_wheel_that_packaging_reads_is_faultless(filename, name, version):
    """A wheel's name is right where the library that pip uses finds this name and version."""
    assert parse_wheel_filename(filename)[:2] == (name, Version(version))
    assert wheel_fault(filename, name, version) is None


@pytest.mark.parametrize(
    ("filename", "version", "what"),
    [
        ("other-1.0-py3-none-any.whl", "1.0", "filename"),
        ("demo-1.1-py3-none-any.whl", "1.0", "filename"),
        ("demo-1.0-py3-none-any.whl", "one", "version"),
        ("demo-1.0-py3-none.whl", "1.0", "filename"),
        ("demo-1.0-3py-none-any.whl", "1.0", "filename"),
        ("demo-1.0-py3-none-any.whl\n", "1.0", "filename"),
        ("../demo-1.0-py3-none-any.whl", "1.0", "filename"),
        ("demo-1.0-py3-no..ne-any.whl", "1.0", "filename"),
    ],
)
def test_a_wheel_of_another_name_is_told(filename, version, what):
    """What is wrong with a file's name is said of the field where it is."""
    fault = wheel_fault(filename, "demo", version)
    assert fault is not None
    assert fault[0] == what


def test_what_is_plain_is_what_packaging_takes():
    """No file name is taken as text that the library that pip uses would refuse."""
    for filename in ("demo-1.0-3py-none-any.whl", "demo-1.0-py3-no..ne-any.whl"):
        with pytest.raises(InvalidWheelFilename):
            parse_wheel_filename(filename)
