"""Through a registry to other tools and back: Docker, Podman, skopeo and umoci agree with us."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration import registry as registries
from tests.integration.registry import require
from tests.integration.test_interop import (
    COMMAND,
    LISTING,
    NAME,
    archive,
    expected,
    made,
    parsed,
    podman,
    run,
    same,
)
from tests.machine import sealed

from torchship.engines import namespaces
from torchship.oci import artifact, mediatypes
from torchship.oci.assemble import assemble, index
from torchship.oci.image import read_image, read_one
from torchship.oci.push import push
from torchship.oci.reference import Reference
from torchship.oci.save import save
from torchship.oci.schema2 import as_docker
from torchship.platform import Platform
from torchship.progress import SILENT
from torchship.project.project import Project

__all__ = ["archive", "expected", "made", "podman"]

pytestmark = pytest.mark.engine

# Podman asks for more open files and processes than a machine inside a container has.
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")


@pytest.fixture
def repository(shared_registry, request) -> str:
    """Give a repository of the test's own."""
    name = "".join(letter for letter in request.node.name if letter.isalnum()).lower()
    return f"{shared_registry.host}/exchange/{name[:60]}"


def other_platform(store, descriptor, folder):
    """Make an index of the image and of one for a platform that is not this machine's."""
    image = read_one(store, descriptor)
    other = next(p for p in ("amd64", "arm64") if p != Platform.host().architecture)
    project = Project(root=folder, name="mnist", command=COMMAND)
    foreign = assemble(
        store, project=project, platform=Platform("linux", other), layers=image.layers
    )
    return index(store, [foreign, descriptor])


# -- ours, in other hands


@pytest.fixture(params=["oci", "docker", "index"])
def published(request, made, repository, tmp_path) -> Reference:
    """Push the image as OCI, in Docker's words, or among two platforms."""
    store, descriptor = made
    if request.param == "docker":
        descriptor = as_docker(store, descriptor)
    elif request.param == "index":
        descriptor = other_platform(store, descriptor, tmp_path)
    name = Reference.parse(f"{repository}:v1")
    push(store, descriptor, name, progress=SILENT)
    return name


def test_docker_pulls_and_runs_what_we_push(published, dockerd, expected):
    """Every file is as it was written."""
    dockerd.docker("pull", "--quiet", published)
    same(parsed(dockerd.docker("run", "--rm", "--network=none", published)), expected)


def test_podman_pulls_and_runs_what_we_push(published, podman, expected):
    """Every file is as it was written."""
    podman("pull", "--quiet", "--tls-verify=false", published)
    same(parsed(podman("run", "--rm", "--network=none", *LIMITS, published)), expected)


def test_skopeo_and_umoci_read_what_we_push(published, made, tmp_path, expected):
    """Inspected, copied by digest, and unpacked by a second, independent unpacker."""
    require("skopeo")
    require("umoci")
    store, descriptor = made
    image = read_one(store, descriptor)
    source = f"docker://{published}"
    shown = json.loads(run("skopeo", "inspect", "--tls-verify=false", source))
    assert shown["Layers"] == [str(layer.digest) for layer in image.layers]
    layout = tmp_path / "layout"
    run("skopeo", "copy", "-q", "--src-tls-verify=false", source, f"oci:{layout}:x")
    if os.geteuid() == 0:  # without root, umoci gives every file to the caller
        bundle = tmp_path / "bundle"
        run("umoci", "unpack", "--image", f"{layout}:x", bundle)
        same(
            parsed(run("sh", "-c", LISTING.replace("cd /data", f"cd {bundle}/rootfs/data"))),
            expected,
        )


# -- theirs, in ours


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What can push an image to a registry."""

    archive: Path
    layout: str
    target: str
    docker: Callable[..., str]
    podman: Callable[..., str]

    def by_docker(self) -> None:
        """Docker's schema 2, with the layers compressed by Docker."""
        self.docker("load", "--input", self.archive)
        self.docker("tag", NAME, self.target)
        self.docker("push", "--quiet", self.target)

    def by_docker_as_a_list(self) -> None:
        """Docker's manifest list."""
        self.by_docker()
        self.docker("manifest", "create", "--insecure", f"{self.target}-list", self.target)
        self.docker("manifest", "push", "--purge", "--insecure", f"{self.target}-list")
        run(
            *("skopeo", "copy", "-q", "--all", "--src-tls-verify=false"),
            *("--dest-tls-verify=false", "--preserve-digests"),
            *(f"docker://{self.target}-list", f"docker://{self.target}"),
        )

    def by_podman(self, *options: str) -> None:
        """Podman's push, which compresses the layers again."""
        self.podman("load", "--quiet", "--input", self.archive)
        self.podman("push", "--quiet", "--tls-verify=false", *options, NAME, self.target)

    def by_podman_as_schema_2(self) -> None:
        """Docker's schema 2, by Podman."""
        self.by_podman("--format=v2s2")

    def by_podman_with_zstd(self) -> None:
        """OCI, with layers in zstd."""
        self.by_podman("--format=oci", "--compression-format=zstd")

    def by_podman_as_an_index(self) -> None:
        """OCI's index, made by Podman."""
        self.podman("load", "--quiet", "--input", self.archive)
        self.podman("manifest", "create", "both", f"containers-storage:{NAME}")
        self.podman("manifest", "push", "--all", "--tls-verify=false", "both", self.target)

    def by_skopeo(self, *options: str) -> None:
        """Copy every byte."""
        run(
            *("skopeo", "copy", "-q", "--dest-tls-verify=false", *options),
            *(self.layout, f"docker://{self.target}"),
        )

    def by_skopeo_as_schema_2(self) -> None:
        """Docker's schema 2, by skopeo."""
        self.by_skopeo("--format=v2s2")

    def by_skopeo_with_zstd(self) -> None:
        """OCI, compressed again in zstd."""
        self.by_skopeo("--format=oci", "--dest-compress", "--dest-compress-format=zstd")


WAYS = {
    "by_docker": (mediatypes.DOCKER_MANIFEST, mediatypes.DOCKER_GZIP),
    "by_docker_as_a_list": (mediatypes.DOCKER_INDEX, mediatypes.DOCKER_GZIP),
    "by_podman": (mediatypes.OCI_MANIFEST, mediatypes.OCI_GZIP),
    "by_podman_as_schema_2": (mediatypes.DOCKER_MANIFEST, mediatypes.DOCKER_GZIP),
    "by_podman_with_zstd": (mediatypes.OCI_MANIFEST, mediatypes.OCI_ZSTD),
    "by_podman_as_an_index": (mediatypes.OCI_INDEX, mediatypes.OCI_GZIP),
    "by_skopeo": (mediatypes.OCI_MANIFEST, mediatypes.OCI_GZIP),
    "by_skopeo_as_schema_2": (mediatypes.DOCKER_MANIFEST, mediatypes.DOCKER_GZIP),
    "by_skopeo_with_zstd": (mediatypes.OCI_MANIFEST, mediatypes.OCI_ZSTD),
}


@pytest.fixture
def tools(made, archive, dockerd, podman, tmp_path) -> Iterator[Tools]:
    """Give the tools, each with the image at hand, and a registry that holds nothing yet.

    Where a registry has a layer in another compression, Podman and skopeo take that.
    """
    require("skopeo")
    store, _ = made
    with registries.running(tmp_path / "registry") as empty:
        yield Tools(
            archive=archive,
            layout=f"oci:{store.oci}:{NAME}",
            target=f"{empty.host}/me/x:v1",
            docker=dockerd.docker,
            podman=podman,
        )


def without_owners(lines: list) -> list:
    """Leave out whose the files are: without root, all of them are the caller's."""
    return [
        (line[0], line[1], line[4], *(line[5:6] if line[0] == "l" else ()))
        if isinstance(line, tuple)
        else line
        for line in lines
    ]


@pytest.mark.parametrize("way", WAYS)
def test_we_pull_and_run_what_others_push(way, tools, made, tmp_path, expected, docker_config):
    """The layers are the same when they are unpacked, and the native engine runs the image."""
    getattr(tools, way)()
    machine = sealed(tmp_path / "machine").with_environment(DOCKER_CONFIG=docker_config.parent)
    assert machine.torchship("pull", tools.target).digest
    store, descriptor = made
    top = machine.store.find(tools.target)
    found = read_image(machine.store, top, Platform.host())
    assert (top.media_type, found.layers[0].media_type) == WAYS[way]
    assert [x.diff_id for x in found.layers] == [
        x.diff_id for x in read_one(store, descriptor).layers
    ]
    if namespaces.obstacle() is not None:
        pytest.skip(namespaces.obstacle().reason)
    answer = machine.torchship("run", "--engine", "native", tools.target)
    assert answer.status == 0, answer.err
    # The native engine leaves out owners and times: files are the caller's, and of now.
    shown = re.sub(r"^(\S{10} \d+ \d+) \d+ ", r"\1 0 ", answer.out, flags=re.MULTILINE)
    assert without_owners(parsed(shown)) == without_owners(expected)


# -- archives with what refers to the image


def test_others_load_an_archive_with_records(made, tmp_path, dockerd, podman, expected):
    """Docker, Podman and skopeo take the image from it, whatever else is in there."""
    require("skopeo")
    store, descriptor = made
    content = artifact.Content(b"{}", "a/json", "record.json")
    about = artifact.attach(store, descriptor, "application/vnd.example.record", (content,))
    path = tmp_path / "image.tar"
    name = Reference.parse("localhost/me/recorded:v1")
    save(store, descriptor, path, names=[name], attached=[about])
    dockerd.docker("load", "--input", path)
    same(parsed(dockerd.docker("run", "--rm", "--network=none", name)), expected)
    podman("load", "--quiet", "--input", path)
    same(parsed(podman("run", "--rm", "--network=none", *LIMITS, name)), expected)
    shown = json.loads(run("skopeo", "inspect", f"oci-archive:{path}:{name}"))
    assert shown["Digest"] == str(descriptor.digest)
