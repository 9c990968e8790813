"""A small root file system, made from this machine's own programs, as a layer."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from torchship.digest import Descriptor, Digest, chunks
from torchship.engines.container import Bind, Container, run
from torchship.engines.relay import Streams
from torchship.engines.unpack import unpack
from torchship.layers.archive import Archive, Entry, Kind
from torchship.layers.layer import Layer
from torchship.oci.image import Image
from torchship.oci.store import Store
from torchship.platform import Platform

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"

PROGRAMS = (
    *("bash", "cat", "chmod", "echo", "env", "head", "id", "ln", "ls", "mkdir", "mount", "ps"),
    *("readlink", "rm", "sh", "sleep", "stat", "stty", "touch", "true", "tty", "python3.11"),
)
PYTHON = "/usr/bin/python3.11"
STDLIB = Path("/usr/lib/python3.11")

# Where engines are required, a missing Python fails these tests instead of hiding them.
linux = pytest.mark.skipif(
    os.environ.get("TORCHSHIP_REQUIRE_ENGINES") != "1"
    and (sys.platform != "linux" or not Path(PYTHON).exists()),
    reason="needs Linux and Debian's Python 3.11",
)


def write_layer(path, add) -> Layer:
    """Write a layer with ``add(archive)`` and return what an image says of it."""
    with path.open("wb") as sink:
        archive = Archive(sink)
        add(archive)
        written = archive.close()
    return Layer(
        digest=written.digest,
        diff_id=written.diff_id,
        size=written.size,
        unpacked_size=written.unpacked_size,
    )


def add_file(archive: Archive, path: str, source: Path) -> None:
    """Add one of the machine's files."""
    if path in archive:
        return
    size = source.stat().st_size
    with source.open("rb") as stream:
        archive.add(Entry(path=path, size=size, mode=0o755), chunks(stream, size))


def libraries(*programs: Path) -> set[Path]:
    """Return the shared libraries, and the loader, that programs are linked to."""
    found = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    words = (word for line in found.splitlines() for word in line.split())
    return {Path(word) for word in words if word.startswith("/") and not word.endswith(":")}


def add_root(archive: Archive) -> None:
    """Add programs, their libraries, Python's own library, and a few files of ``/etc``."""
    for top in ("bin", "lib", "lib64", "sbin"):
        archive.add(Entry(path=top, kind=Kind.SYMLINK, target=f"usr/{top}"))
    for folder, mode in (("tmp", 0o1777), ("workspace", 0o755), ("output", 0o755)):
        archive.add(Entry(path=folder, kind=Kind.DIRECTORY, mode=mode))
    programs = [Path("/usr/bin") / name for name in PROGRAMS]
    extensions = sorted((STDLIB / "lib-dynload").glob("*.so"))
    needed = libraries(*programs, *extensions)
    needed |= {library.resolve() for library in needed if library.name.startswith("ld-")}
    for program in (*programs, *extensions, *sorted(needed)):
        path = str(program).lstrip("/")
        add_file(archive, path if path.startswith("usr/") else f"usr/{path}", program)
    for module in sorted(STDLIB.rglob("*.py")):
        if not {"test", "idlelib", "lib2to3", "ensurepip"} & set(module.parts):
            add_file(archive, str(module).lstrip("/"), module)
    archive.add(Entry(path="usr/bin/python3", kind=Kind.SYMLINK, target="python3.11"))
    passwd = b"root:x:0:0::/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n"
    archive.add(Entry(path="etc/passwd", size=len(passwd)), [passwd])


@pytest.fixture(scope="session")
def root_layer(tmp_path_factory):
    """Return the layer's file and what an image says of it."""
    path = tmp_path_factory.mktemp("layer") / "root.tgz"
    return path, write_layer(path, add_root)


@pytest.fixture(scope="session")
def root(root_layer, tmp_path_factory) -> Path:
    """Unpack the layer."""
    path, layer = root_layer
    return unpack(layer, lambda _: path.open("rb"), tmp_path_factory.mktemp("unpacked"))


@dataclass
class Result:
    """What a program in a container gave."""

    status: int
    out: str
    err: str


@pytest.fixture
def sandbox(root, tmp_path):
    """Run a command in a container and return status and what it printed."""

    def start(*command, **settings) -> Result:
        out, err = tmp_path / "out", tmp_path / "err"
        environment = {"PATH": "/usr/bin", **settings.pop("environment", {})}
        streams = settings.pop("streams", {})
        container = Container(
            layers=settings.pop("layers", (root,)),
            command=command,
            scratch=tmp_path / "scratch",
            environment=environment,
            **settings,
        )
        with out.open("wb") as stdout, err.open("wb") as stderr:
            ends = {"stdout": stdout.fileno(), "stderr": stderr.fileno(), **streams}
            status = run(container, Streams(**ends))
        return Result(status, out.read_text(), err.read_text())

    return start


@pytest.fixture
def python(sandbox):
    """Run a Python program, given as text, in a container."""

    def start(program, **settings) -> Result:
        return sandbox("python3", "-I", "-S", "-c", program, **settings)

    return start


def bind(source, target, read_only=False) -> Bind:
    """Shorten a mount."""
    return Bind(source=Path(source), target=target, read_only=read_only)


@pytest.fixture(scope="session")
def store(root_layer, tmp_path_factory) -> Store:
    """Open a store that holds the layer."""
    path, layer = root_layer
    store = Store.open(tmp_path_factory.mktemp("store"))
    with path.open("rb") as blob, store.writer() as writer:
        for piece in chunks(blob):
            writer.write(piece)
        writer.commit(layer.digest)
    return store


@pytest.fixture
def image(root_layer) -> Image:
    """Describe an image of that layer alone."""
    config = Descriptor(media_type=CONFIG, digest=Digest.of(b"config"), size=6)
    manifest = Descriptor(media_type=MANIFEST, digest=Digest.of(b"manifest"), size=8)
    return Image(
        platform=Platform.host(),
        descriptor=manifest,
        config=config,
        layers=(root_layer[1],),
        command=("bash", "-c", "echo the image; exit 3"),
        environment={"PATH": "/usr/bin", "FROM_IMAGE": "1"},
        workdir="/workspace",
        user="user",
    )
