"""Small files that a project's author chose the name, and the kind, of."""

from __future__ import annotations

import os
import socket

import pytest

from torchship.errors import ProjectError
from torchship.project import tables, textfile
from torchship.project.requirements import read


def test_a_file_is_read_whole_and_through_links(tmp_path):
    """A link to a file is as good as the file."""
    (tmp_path / "file").write_bytes(b"text\n")
    (tmp_path / "link").symlink_to("file")
    assert textfile.read(tmp_path / "link") == b"text\n"


@pytest.mark.timeout(20)
def test_pipes_sockets_and_devices_are_no_files(tmp_path):
    """A pipe is not waited for, and what has no end is not read."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as served:
        here = os.open(tmp_path, os.O_RDONLY)
        served.bind(f"/proc/self/fd/{here}/socket")  # a socket's path is short
        os.close(here)
        for name in ("pipe", "zero", "socket"):
            with pytest.raises(OSError, match=r"a pipe, a socket or a device|No such device"):
                textfile.read(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        textfile.read(tmp_path)


def test_a_file_that_is_too_long_is_refused(tmp_path):
    """Whoever parses text has all of it in memory."""
    (tmp_path / "long").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(OSError, match="larger than 1 MB"):
        textfile.read(tmp_path / "long", limit=1 << 20)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["requirements.txt", "more.txt"])
def test_requirements_are_no_pipe(project, name):
    """Neither the project's file nor what it includes is waited for."""
    found = project(requirements__txt="-r more.txt\n", more__txt="six\n")
    (found.root / name).unlink()
    os.mkfifo(found.root / name)
    with pytest.raises(ProjectError, match=f"{name}.* cannot be read: it is a pipe"):
        read(found)


@pytest.mark.timeout(20)
def test_a_table_is_no_pipe(tmp_path):
    """As with pyproject.toml of a folder that is being initialised."""
    os.mkfifo(tmp_path / "pyproject.toml")
    with pytest.raises(ProjectError, match=r"pyproject\.toml cannot be read: it is a pipe"):
        tables.parse(tmp_path / "pyproject.toml")
