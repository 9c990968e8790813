"""The name that a shared library has for others."""

from pathlib import Path

import pytest

from torchship.engines.soname import soname

from .conftest import PYTHON, libraries, linux


@linux
def test_a_library_says_its_name():
    """Whatever its file is called."""
    found = {path.name: path for path in libraries(Path(PYTHON))}
    for name in ("libc.so.6", "libm.so.6"):
        assert soname(found[name].resolve()) == name


@linux
def test_a_program_has_none():
    """It has a dynamic section, too."""
    assert soname(Path(PYTHON)) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a library",
        b"\x7fELF\x01\x01" + bytes(60),  # 32 bits
        b"\x7fELF\x02\x01",  # cut short
        b"\x7fELF\x02\x01" + b"\xff" * 60,  # numbers that lead nowhere
    ],
)
def test_what_is_no_library_has_none(tmp_path, content):
    """And no error: a folder of libraries holds scripts for the linker as well."""
    path = tmp_path / "libx.so.1"
    path.write_bytes(content)
    assert soname(path) is None
    assert soname(tmp_path) is None


@linux
def test_a_damaged_library_has_none(tmp_path):
    """Every cut and every changed byte of the headers ends without an error."""
    found = next(path for path in libraries(Path(PYTHON)) if path.name.startswith("libz.so"))
    content = found.read_bytes()
    path = tmp_path / "libz.so.1"
    for place in (*range(64, 900, 7), len(content) // 2):
        path.write_bytes(content[:place])
        soname(path)
        path.write_bytes(content[:place] + b"\xff\xff" + content[place + 2 :])
        soname(path)
