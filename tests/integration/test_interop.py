"""Our images in other hands: skopeo, umoci, Docker and Podman see the same files as we wrote."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.registry import require

from torchship.digest import Digest
from torchship.layers.archive import Entry, Kind
from torchship.layers.layer import Materials
from torchship.oci.assemble import assemble, index
from torchship.oci.image import read_one
from torchship.oci.load import load
from torchship.oci.reference import Reference
from torchship.oci.save import save
from torchship.oci.schema2 import as_docker
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.project.project import Project

pytestmark = pytest.mark.engine

NAME = Reference.parse("localhost/me/mnist:v0.1")
LISTING = """
cd /data
find . | LC_ALL=C sort | while IFS= read -r path; do
    stat -c '%A %u %g %Y %N' "$path"
    if [ -f "$path" ] && [ ! -L "$path" ]; then sha256sum < "$path"; fi
done
"""
COMMAND = ("/bin/sh", "-c", LISTING)
PROGRAMS = ("sh", "find", "sort", "stat", "sha256sum", "cat")


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A recipe of given entries, each with its bytes."""

    title: str
    entries: tuple[tuple[Entry, bytes], ...]

    @property
    def origin(self):
        """Nothing came from elsewhere."""
        return {}

    @property
    def inputs(self):
        """What the bytes depend on."""
        return {"entries": [[repr(entry), str(Digest.of(data))] for entry, data in self.entries]}

    @property
    def needs(self):
        """No files."""
        return ()

    def write(self, archive, materials):
        """Write the entries in their order."""
        for entry, data in self.entries:
            archive.add(entry, [data])


def programs() -> Tree:
    """Take a few programs of this machine, with the libraries that they need, for a tiny root."""
    files: dict[str, Path] = {}
    for name in PROGRAMS:
        found = Path(shutil.which(name))
        files[f"bin/{name}"] = found.resolve()
        shown = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", shown):
            files[library[1:]] = Path(library).resolve()
    entries = [
        (Entry(path=path, mode=0o755, size=len(data)), data)
        for path, data in ((path, files[path].read_bytes()) for path in sorted(files))
    ]
    return Tree(title="programs", entries=tuple(entries))


def contents() -> tuple[Tree, Tree]:
    """Make two layers: all kinds of entries and of names, and a change on top of them."""

    def file(path, data=b"", **more):
        return Entry(path=path, size=len(data), **more), data

    long = "data/" + "/".join(["a-long-name-of-a-folder"] * 8)
    lower = (
        (Entry(path="data", kind=Kind.DIRECTORY, mode=0o755, uid=1000, gid=1000), b""),
        file("data/changed", b"before\n"),
        file("data/empty"),
        file("data/program", b"#!/bin/sh\n", mode=0o755),
        file("data/a name with spaces", b"x"),
        file("data/이름", b"unicode\n", uid=1000, gid=1000),
        file(f"{long}/file", b"deep\n"),
        file("data/large", bytes(range(256)) * 20_000),
        file("data/private", b"secret\n", mode=0o600, uid=1000, gid=1000),
        (Entry(path="data/open", kind=Kind.DIRECTORY, mode=0o1777), b""),
        (Entry(path="data/link", kind=Kind.SYMLINK, mode=0o777, target="../bin/sh"), b""),
        (Entry(path="data/hard", kind=Kind.HARDLINK, target="data/program", mode=0o755), b""),
    )
    upper = (
        (Entry(path="data", kind=Kind.DIRECTORY, mode=0o755, uid=1000, gid=1000), b""),
        file("data/changed", b"after\n"),
    )
    return Tree(title="lower", entries=lower), Tree(title="upper", entries=upper)


def listing(root: Path) -> list[str]:
    """Look at an unpacked root as `LISTING` does inside a container."""
    lines = []
    base = root / "data"
    paths = [base, *base.rglob("*")]
    for path in sorted(paths, key=lambda path: ("./" + str(path.relative_to(base))).encode()):
        status = path.lstat()
        name = "." if path == base else f"./{path.relative_to(base)}"
        lines.append(f"{status.st_uid} {status.st_gid} {status.st_mode:o} {name}")
        if path.is_file():
            lines.append(Digest.of_file(path).hex)
    return lines


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Build the image once; return the store, the image, and what its files must look like."""
    folder = tmp_path_factory.mktemp("interop")
    store = Store.open(folder / "home")
    recipes = (programs(), *contents())
    layers = [store.derive(r, Materials(files={}, scratch=folder)) for r in recipes]
    project = Project(root=folder, name="mnist", command=COMMAND)
    descriptor = assemble(
        store, project=project, platform=Platform.host(), layers=layers, environment={}
    )
    store.tag(NAME, descriptor)
    return store, descriptor


@pytest.fixture(scope="module")
def archive(made, tmp_path_factory):
    """Save the image as one file."""
    store, descriptor = made
    path = tmp_path_factory.mktemp("archive") / "image.tar"
    save(store, descriptor, path, names=[NAME])
    return path


@pytest.fixture(scope="module")
def expected():
    """Return what `LISTING` must print: taken from the entries, by nobody's unpacker."""
    kinds = {Kind.FILE: "-", Kind.DIRECTORY: "d", Kind.SYMLINK: "l", Kind.HARDLINK: "-"}
    lower, upper = contents()
    found = {entry.path: (entry, data) for entry, data in (*lower.entries, *upper.entries)}
    for path in tuple(found):
        while (path := path.rpartition("/")[0]) and path not in found:
            found[path] = (Entry(path=path, kind=Kind.DIRECTORY, mode=0o755), b"")
    lines = []
    for path in sorted(found, key=lambda path: ("." + path.removeprefix("data")).encode()):
        entry, data = found[path]
        if entry.kind is Kind.HARDLINK:
            _, data = found[entry.target]
        name = "." + path.removeprefix("data")
        lines.append((kinds[entry.kind], entry.mode, entry.uid, entry.gid, name, entry.target))
        if kinds[entry.kind] == "-":
            lines.append(hashlib.sha256(data).hexdigest())
    return lines


def parsed(text: str) -> list:
    """Read what `LISTING` printed into the form of `expected`."""
    lines = []
    for line in text.splitlines():
        if match := re.fullmatch(r"([0-9a-f]{64})  -", line):
            lines.append(match[1])
            continue
        mode, uid, gid, mtime, names = line.split(" ", 4)
        assert mtime == "0", line
        # The shell's quoting of %N: 'a b', or 'a'$'\303\251' where the locale is C.
        shown = [unquoted(name) for name in names.split(" -> ")]
        bits = octal(mode)
        lines.append((mode[0], bits, int(uid), int(gid), shown[0], *shown[1:2]))
    return lines


def octal(mode: str) -> int:
    """Read ``drwxr-xr-t``."""
    bits = sum(1 << (8 - place) for place, letter in enumerate(mode[1:]) if letter not in "-T")
    return bits | (0o1000 if mode[-1] in "tT" else 0)


def unquoted(text: str) -> str:
    """Take GNU's shell quoting away, octal escapes and all."""
    plain = re.sub(r"\$?'((?:[^'\\]|\\.)*)'", r"\1", text)
    raw = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), plain.encode())
    return raw.decode()


def same(shown: list, expected: list) -> None:
    """Compare a container's listing with what was written."""
    wanted = []
    for line in expected:
        if isinstance(line, tuple):
            kind, mode, uid, gid, name, target = line
            line = (kind, mode, uid, gid, name, *((target,) if kind == "l" else ()))
        wanted.append(line)
    assert shown == wanted


def run(*command, **more) -> str:
    """Run a tool of the machine; a failure shows what it said."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_skopeo_reads_the_store_by_name(made):
    """The store's layout is an image layout, and the name that we gave is a name in it."""
    require("skopeo")
    store, descriptor = made
    shown = json.loads(run("skopeo", "inspect", f"oci:{store.oci}:{NAME}"))
    assert shown["Digest"] == str(descriptor.digest)
    assert len(shown["Layers"]) == 3
    assert "TORCHSHIP_OUTPUT=/output" in shown["Env"]


def test_skopeo_copies_every_byte(made, tmp_path):
    """A copy to a folder of files has our manifest, config and layers, unchanged."""
    require("skopeo")
    store, descriptor = made
    run("skopeo", "copy", "-q", f"oci:{store.oci}:{NAME}", f"dir:{tmp_path / 'copy'}")
    copied = {Digest.of_file(path) for path in (tmp_path / "copy").iterdir()}
    image = read_one(store, descriptor)
    assert {
        descriptor.digest,
        image.config.digest,
        *(layer.digest for layer in image.layers),
    } <= copied


def test_skopeo_reads_schema_2(made, tmp_path):
    """The image in Docker's words is one that other tools take, and translate back."""
    require("skopeo")
    store, descriptor = made
    image = read_one(store, as_docker(store, descriptor))
    folder = tmp_path / "dir"
    folder.mkdir()
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    (folder / "manifest.json").write_bytes(image.raw_manifest)
    for digest in (image.config.digest, *(layer.digest for layer in image.layers)):
        shutil.copy(store.blobs.path(digest), folder / digest.hex)
    run("skopeo", "copy", "-q", f"dir:{folder}", f"oci:{tmp_path / 'oci'}:x")
    shown = json.loads(run("skopeo", "inspect", f"oci:{tmp_path / 'oci'}:x"))
    assert shown["Layers"] == [str(layer.digest) for layer in image.layers]


@pytest.mark.unprivileged
def test_skopeo_reads_both_sides_of_the_archive(made, archive):
    """One file is an OCI archive and a Docker archive of the same image."""
    require("skopeo")
    store, descriptor = made
    image = read_one(store, descriptor)
    oci = run("skopeo", "inspect", "--raw", f"oci-archive:{archive}:{NAME}")
    assert oci.encode() == image.raw_manifest
    docker = run("skopeo", "inspect", "--config", "--raw", f"docker-archive:{archive}:{NAME}")
    assert docker.encode() == image.raw_config


@pytest.mark.unprivileged
def test_an_index_keeps_its_platforms_with_skopeo(made, tmp_path):
    """Both platforms are copied from the archive, by their digests."""
    require("skopeo")
    store, descriptor = made
    image = read_one(store, descriptor)
    project = Project(root=tmp_path, name="mnist", command=COMMAND)
    other = assemble(
        store, project=project, platform=Platform("linux", "arm64"), layers=image.layers
    )
    both = index(store, [descriptor, other])
    save(store, both, tmp_path / "both.tar", names=[NAME])
    copy = tmp_path / "copy"
    run("skopeo", "copy", "-q", "--all", f"oci-archive:{tmp_path / 'both.tar'}", f"dir:{copy}")
    copied = {Digest.of_file(path) for path in copy.iterdir()}
    assert {both.digest, descriptor.digest, other.digest} <= copied


def test_umoci_unpacks_the_same_files(made, tmp_path, expected):
    """A second, independent unpacker finds what we wrote: kinds, modes, owners, bytes."""
    require("umoci")
    if os.geteuid() != 0:
        pytest.skip("without root, umoci gives every file to the caller")
    store, _ = made
    layout = tmp_path / "layout"
    require("skopeo")
    run("skopeo", "copy", "-q", f"oci:{store.oci}:{NAME}", f"oci:{layout}:x")
    bundle = tmp_path / "bundle"
    run("umoci", "unpack", "--image", f"{layout}:x", bundle)
    shown = run("sh", "-c", LISTING.replace("cd /data", f"cd {bundle}/rootfs/data"))
    same(parsed(shown), expected)


def test_docker_loads_and_runs_it(archive, dockerd, expected):
    """``docker load`` takes the archive, and the container sees the same files."""
    assert "me/mnist:v0.1" in dockerd.docker("load", "--input", archive)
    same(parsed(dockerd.docker("run", "--rm", "--network=none", NAME)), expected)
    shown = dockerd.docker("run", "--rm", "--network=none", NAME, "/bin/sh", "-c", "pwd")
    assert shown == "/workspace\n"


def test_docker_needs_only_the_layers_that_it_lacks(made, dockerd, archive, tmp_path, expected):
    """An archive without the files of layers that Docker has is loaded all the same."""
    store, descriptor = made
    dockerd.docker("load", "--input", archive)
    lower = read_one(store, descriptor).layers
    edit = Tree(title="edit", entries=((Entry(path="edited", size=1), b"x"),))
    top = store.derive(edit, Materials(files={}, scratch=tmp_path))
    project = Project(root=tmp_path, name="mnist", command=("/bin/cat", "/edited"))
    edited = assemble(store, project=project, platform=Platform.host(), layers=[*lower, top])
    thin = tmp_path / "thin.tar"
    name = Reference.parse("localhost/me/edited:v1")
    save(store, edited, thin, names=[name], omit=[layer.digest for layer in lower])
    assert thin.stat().st_size < 20_000
    dockerd.docker("load", "--input", thin)
    assert dockerd.docker("run", "--rm", "--network=none", name) == "x"


def test_podman_loads_and_runs_it(archive, podman, expected):
    """``podman load`` takes the archive, names the image, and runs it."""
    assert str(NAME) in podman("load", "--quiet", "--input", archive)
    # Podman asks for more open files and processes than a machine inside a container has.
    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
    same(parsed(podman("run", "--rm", "--network=none", *limits, NAME)), expected)


def test_what_docker_saves_is_loaded(archive, dockerd, tmp_path, made):
    """The image that comes back from Docker has our config, and its layers have our diff_ids."""
    store, descriptor = made
    dockerd.docker("load", "--input", archive)
    dockerd.docker("save", "--output", tmp_path / "docker.tar", NAME)
    other = Store.open(tmp_path / "other")
    (loaded,) = load(other, tmp_path / "docker.tar")
    assert loaded.names == (NAME,)
    ours, theirs = read_one(store, descriptor), read_one(other, loaded.descriptor)
    assert theirs.config.digest == ours.config.digest
    assert [x.diff_id for x in theirs.layers] == [x.diff_id for x in ours.layers]


def test_what_podman_and_skopeo_save_is_loaded(archive, podman, tmp_path, made):
    """Archives of both kinds come back, with the layers recompressed or not."""
    require("skopeo")
    store, descriptor = made
    ours = read_one(store, descriptor)
    podman("load", "--quiet", "--input", archive)
    for form in ("oci-archive", "docker-archive"):
        path = tmp_path / f"{form}.tar"
        podman("save", "--quiet", f"--format={form}", "--output", path, NAME)
        (loaded,) = load(Store.open(tmp_path / form), path)
        theirs = read_one(Store.open(tmp_path / form), loaded.descriptor)
        assert theirs.command == ours.command
        assert [x.diff_id for x in theirs.layers] == [x.diff_id for x in ours.layers]
    zstd = tmp_path / "zstd.tar"
    run(
        *("skopeo", "copy", "-q", "--dest-compress", "--dest-compress-format=zstd"),
        *(f"oci:{store.oci}:{NAME}", f"oci-archive:{zstd}:x"),
    )
    (loaded,) = load(Store.open(tmp_path / "zstd"), zstd)
    theirs = read_one(Store.open(tmp_path / "zstd"), loaded.descriptor)
    assert [x.diff_id for x in theirs.layers] == [x.diff_id for x in ours.layers]


@pytest.fixture
def podman():
    """Run podman on a store of its own; returns a function that gives its output."""
    require("podman")
    if os.geteuid() != 0:
        pytest.skip("rootless podman needs subordinate ids on this machine")
    # A short path: podman's runroot ends at 50 characters.
    storage = Path(tempfile.mkdtemp(prefix="podman-"))
    command = ["podman", f"--root={storage}/root", f"--runroot={storage}/run"]
    command += ["--storage-driver=vfs", "--cgroup-manager=cgroupfs"]
    # crun refuses machines with both versions of cgroups, as those inside containers may be.
    command += ["--runtime=runc"] if shutil.which("runc") else []
    environment = {key: value for key, value in os.environ.items() if key != "DOCKER_CONFIG"}
    yield lambda *arguments: run(*command, *arguments, env=environment)
    run(*command, "rm", "--all", "--force")
    shutil.rmtree(storage)
