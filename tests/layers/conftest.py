import gzip
import hashlib
import io
import lzma
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard

from torchship.digest import Digest
from torchship.layers.archive import Archive
from torchship.layers.layer import Materials
from torchship.project.lock import PackagePin

COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
    ".bz2": bytes,
}


def member(name, data=b"", *, mode=0o644, type=tarfile.REGTYPE, target="", uid=0, gid=0):
    """Return a tar member and its content, for `make_deb`."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.type, info.linkname = len(data), mode, type, target
    info.uid, info.gid = uid, gid
    return info, data


def tar(members):
    """Return the bytes of a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def ar(files):
    """Return the bytes of an ar archive of (name, content) pairs."""
    out = b"!<arch>\n"
    for name, data in files:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        out += data + b"\n" * (len(data) % 2)
    return out


@dataclass
class Debs:
    """Makes packages and keeps them as a fetcher would."""

    folder: Path
    files: dict = field(default_factory=dict)

    def make(self, name, members, *, suffix=".xz", control=None, version="1.0"):
        """Make a package that holds these members; return its pin."""
        text = control or f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
        sums = "".join(
            f"{hashlib.md5(data).hexdigest()}  {info.name.removeprefix('./')}\n"
            for info, data in members
            if info.isreg()
        )
        control_tar = tar([member("./control", text.encode()), member("./md5sums", sums.encode())])
        compress = COMPRESS[suffix]
        return self.write(
            name,
            ar(
                [
                    ("debian-binary", b"2.0\n"),
                    (f"control.tar{suffix}", compress(control_tar)),
                    (f"data.tar{suffix}", compress(tar(members))),
                ]
            ),
        )

    def write(self, name, data):
        """Keep bytes as a package, whatever they are; return its pin."""
        path = self.folder / f"{name}.deb"
        path.write_bytes(data)
        digest = Digest.of(data)
        self.files[digest] = path
        return PackagePin(
            name=name,
            version="1.0",
            architecture="amd64",
            path=f"pool/{name}.deb",
            size=len(data),
            digest=digest,
        )


@pytest.fixture
def project(tmp_path):
    """Return a function that writes files of a project, and its root."""
    root = tmp_path / "project"
    root.mkdir()

    def write(files):
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root

    return write


@pytest.fixture
def debs(tmp_path):
    """Return a place to make packages in."""
    folder = tmp_path / "debs"
    folder.mkdir()
    return Debs(folder)


class ThisPython:
    """The interpreter that runs the tests, started as an image's would be."""

    def run(self, script, arguments):
        """Run a script, isolated."""
        subprocess.run([sys.executable, "-I", "-S", str(script), *arguments], check=True)


@dataclass
class Cooked:
    """A finished layer: its bytes, and what is in them."""

    data: bytes

    @property
    def members(self):
        """The tar headers by name, in order."""
        with tarfile.open(fileobj=io.BytesIO(self.data)) as archive:
            return {info.name: info for info in archive}

    @property
    def names(self):
        """What is no directory, in order."""
        return [name for name, info in self.members.items() if not info.isdir()]

    def read(self, name):
        """Return the content of a file."""
        with tarfile.open(fileobj=io.BytesIO(self.data)) as archive:
            return archive.extractfile(name).read()


@pytest.fixture
def cook(tmp_path):
    """Return a function that derives a recipe's layer."""

    def derive(recipe, files=None, interpreter=None):
        out = io.BytesIO()
        archive = Archive(out)
        recipe.write(
            archive,
            Materials(files=files or {}, scratch=tmp_path, interpreter=interpreter),
        )
        archive.close()
        return Cooked(out.getvalue())

    return derive


@pytest.fixture
def this_python():
    """Return the Python that runs the tests, as an interpreter."""
    return ThisPython()


@pytest.fixture
def member_of():
    """Return the function `member`: fixtures are how tests share functions."""
    return member


@pytest.fixture
def ar_of():
    """Return the function `ar`."""
    return ar


@pytest.fixture
def tar_of():
    """Return the function `tar`."""
    return tar
