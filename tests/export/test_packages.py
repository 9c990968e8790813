"""What packages say of themselves, and what of it is taken."""

from __future__ import annotations

import pytest

from torchship.export.packages import read_distribution, read_packages, read_release

STATUS = b"""\
Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Source: glibc
Version: 2.36-9+deb12u10
Provides: libc6-2.36
Depends: libgcc-s1, libcrypt1 (>= 1:4.4.10-10~)
Description: GNU C Library: Shared libraries
 Contains the standard libraries.

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: python3
Status: install ok installed
Architecture: amd64
Source: python3-defaults (3.11.2-1)
Version: 3.11.2-1+b1
Pre-Depends: python3-minimal (= 3.11.2-1+b1)
Depends: python3.11:any (>= 3.11.2-1~) | pypy3, libc6
"""


def metadata(*lines):
    """Return a METADATA file of some headers."""
    return "\n".join(
        ["Metadata-Version: 2.4", "Name: A_b", "Version: 1.0", *lines, "", ""]
    ).encode()


def test_a_distribution_is_what_its_headers_say():
    """Names are normalised; requirements stay as they were written."""
    found = read_distribution(metadata("Summary: s", "Requires-Dist: x>1", "Requires-Dist: y"))
    assert (found.name, found.version, found.summary) == ("a-b", "1.0", "s")
    assert found.requires == ("x>1", "y")


@pytest.mark.parametrize(
    "raw", [b"", b"Name: a\n\n", b"Version: 1\n\n", b"\xff\x00\xfe", b"a" * 99]
)
def test_what_names_no_project_is_none(raw):
    """Without name and version there is nothing to list."""
    assert read_distribution(raw) is None


@pytest.mark.parametrize(
    ("lines", "expression", "licences"),
    [
        (["License-Expression: MIT OR Apache-2.0"], "MIT OR Apache-2.0", ()),
        (["License: BSD-3-Clause"], "", ("BSD-3-Clause",)),
        (["License: UNKNOWN", "Classifier: License :: OSI Approved :: MIT License"], "",
         ("MIT License",)),
        (["License: one", " two", "Classifier: License :: OSI Approved"], "", ()),
        (["Classifier: Topic :: Text"], "", ()),
    ],
)  # fmt: skip
def test_licences_are_taken_from_where_they_stand(lines, expression, licences):
    """An expression, a line in the old field, else the classifiers; a licence's text is no name."""
    found = read_distribution(metadata(*lines))
    assert (found.expression, found.licences) == (expression, licences)


def test_installed_packages_are_read_with_what_they_need():
    """Removed packages are left out; versions and architectures of relations are not kept."""
    libc, python = read_packages(STATUS)
    assert (libc.name, libc.version, libc.source) == ("libc6", "2.36-9+deb12u10", "glibc")
    assert libc.summary == "GNU C Library: Shared libraries"
    assert libc.provides == ("libc6-2.36",)
    assert python.source == "python3-defaults"
    assert python.depends == (("python3-minimal",), ("python3.11", "pypy3"), ("libc6",))


def test_a_damaged_status_gives_what_can_be_read():
    """Nothing of a stranger's file is an error."""
    assert [each.name for each in read_packages(b"\x00\n\nPackage\n\n:::\n\n" + STATUS)]
    assert not list(read_packages(b"\xff" * 1000))


def test_the_release_is_read_without_quotes():
    """Comments are no variables."""
    found = read_release(b'ID=debian\nVERSION_ID="12"\n#X=1\nPRETTY_NAME="Debian 12"\n')
    assert found == {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian 12"}
