"""Building on a machine that has nothing, of what a registry has: only the change is made."""

from __future__ import annotations

import json
import random
import shutil

import pytest
from tests import bases
from tests.integration import images
from tests.integration import proxy as faults
from tests.machine import Machine, debian_packages, equipped, verify

from torchship import canonical
from torchship.digest import Digest
from torchship.layers.layer import KEY
from torchship.oci import mediatypes
from torchship.oci.push import push
from torchship.oci.reference import Reference
from torchship.oci.registry.client import Registry
from torchship.oci.store import Store
from torchship.progress import SILENT

__all__ = ["debian_packages"]

pytestmark = pytest.mark.engine


@pytest.fixture
def machine(tmp_path, debian_packages, docker_config) -> Machine:
    """Give a machine that can lock and build, and reaches nothing but the registry."""
    return equipped(tmp_path, debian_packages).with_environment(DOCKER_CONFIG=docker_config.parent)


@pytest.fixture
def bare(machine) -> Machine:
    """Give the same machine with nothing in its store, and neither wheels nor packages at hand."""
    return machine.with_store("bare").with_environment(
        PIP_FIND_LINKS=machine.root / "nowhere", TORCHSHIP_DEBIAN_MIRROR=machine.root / "nowhere"
    )


@pytest.fixture
def project(machine):
    """Give a project with two wheels, one of which shares no layer with anything."""
    return machine.project(requirements__txt="leaf\nother\n")


@pytest.fixture
def repository(proxy, request) -> str:
    """Give a repository of the test's own, seen through the proxy."""
    return f"{proxy.host}/{Digest.of(request.node.name.encode()).short}"


def edit(project) -> None:
    """Change the code."""
    (project / "main.py").write_text("print('edited')\n")


def downloads(machine) -> int:
    """Count what was downloaded into the machine's store."""
    return sum(len(path.name) == 64 for path in (machine.home / "downloads").rglob("*"))


def test_an_edit_is_built_of_published_layers(machine, bare, project, repository, proxy):
    """Nothing is downloaded, one layer is made, and the image is the one a full build gives."""
    machine.build(project, "-t", f"{repository}:v1", "--push")
    edit(project)
    proxy.seen.clear()
    answer = bare.torchship("build", project, "-t", f"{repository}:v1", "--push")
    assert f"taken by digest from {repository}:v1: received" in answer.err
    assert (bare.home / "downloads").is_dir()
    assert downloads(bare) == 0
    assert proxy.count("GET", "/blobs/sha256") == 1  # the config
    assert proxy.count("PUT", "/blobs/") == 2  # the code and the new config
    assert answer.digest == machine.build(project)


def test_another_tag_is_named(machine, bare, project, repository, proxy):
    """--cache-from needs no --push: the layers stay where they are until they are wanted."""
    machine.build(project, "-t", f"{repository}:v1", "--push")
    edit(project)
    digest = bare.build(project, "-t", "mnist", "--cache-from", f"{repository}:v1")
    assert digest == machine.build(project)
    assert verify(bare.home) == 3  # manifest, config, code


def test_only_what_changed_is_made(machine, bare, project, repository):
    """Another requirement is another wheel; all other layers are taken."""
    machine.build(project, "-t", f"{repository}:v1", "--push")
    machine.wheel("third", "1.0", {"third/data": random.Random(3).randbytes(3_000_000)})
    (project / "requirements.txt").write_text("leaf\nother\nthird\n")
    machine.torchship("lock", project)
    shelf = bare.with_environment(PIP_FIND_LINKS=machine.shelf)
    digest = shelf.build(project, "-t", f"{repository}:v1", "--push")
    assert downloads(bare) == 1
    assert digest == machine.build(project)


def test_the_code_itself_is_taken_too(machine, bare, project, repository):
    """An unchanged project sends nothing at all."""
    digest = machine.build(project, "-t", f"{repository}:v1", "--push")
    # v2 is not there yet: nothing is taken of it, or said
    answer = machine.with_store("other").torchship(
        "build", project, "-t", f"{repository}:v2", "--push"
    )
    assert answer.digest == digest
    assert "taken" not in answer.err
    again = bare.with_store("again").torchship(
        "build", project, "-t", f"{repository}:v3", "--push", "--cache-from", f"{repository}:v1"
    )
    assert again.digest == digest
    assert "sent 0 B" in again.err


def test_several_platforms_are_taken_from_an_index(machine, bare, project, repository):
    """Each platform's layers are found among the images of the index."""
    both = ("--platform", "linux/amd64", "--platform", "linux/arm64")
    machine.build(project, *both, "-t", f"{repository}:v1", "--push")
    edit(project)
    digest = bare.build(project, *both, "-t", f"{repository}:v1", "--push")
    assert downloads(bare) == 0
    assert digest == machine.build(project, *both)


def test_docker_schema_2_is_taken_from_as_well(machine, bare, project, repository):
    """Its manifests have no annotations: the config knows what the layers were derived from."""
    machine.build(project, "--docker", "-t", f"{repository}:v1", "--push")
    edit(project)
    digest = bare.build(project, "--docker", "-t", f"{repository}:v1", "--push")
    assert downloads(bare) == 0
    assert digest == machine.build(project, "--docker")
    oci = bare.with_store("oci").build(project, "--cache-from", f"{repository}:v1")
    assert oci == machine.build(project)


def test_several_references_are_looked_at(machine, bare, project, repository):
    """One that is missing is told, and the others serve."""
    machine.build(project, "-t", f"{repository}:v1", "--push")
    edit(project)
    sources = ("--cache-from", f"{repository}:none", "--cache-from", f"{repository}:v1")
    answer = bare.torchship("build", project, "-t", "mnist", *sources)
    assert f"nothing is taken from {repository}:none" in answer.err
    assert answer.digest == machine.build(project)


@pytest.mark.parametrize(
    "act",
    [
        faults.answered(200, {"Content-Type": mediatypes.OCI_MANIFEST}, b"[]"),
        faults.answered(200, {"Content-Type": mediatypes.OCI_MANIFEST}, b"x" * (5 << 20)),
        faults.answered(403),
        faults.answered(500),
    ],
    ids=["malformed", "huge", "forbidden", "failing"],
)
def test_what_cannot_be_read_is_told_and_left_out(machine, project, repository, proxy, act):
    """The same image comes out, made here."""
    digest = machine.build(project)
    proxy.on("GET", "/manifests/", act, times=-1)
    other = machine.with_store("other")
    answer = other.torchship("build", project, "--cache-from", f"{repository}:v1")
    assert answer.digest == digest
    assert answer.err.count("nothing is taken from") == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_name_that_is_new_is_not_worth_a_line(machine, project, repository, proxy, status):
    """Registries hide repositories that are not there; if more is wrong, the push tells it."""
    proxy.on("GET", "/manifests/v1", faults.answered(status), times=1)
    answer = machine.torchship("build", project, "-t", f"{repository}:v1", "--push")
    assert answer.digest
    assert "nothing is taken" not in answer.err
    assert proxy.fired == 1


def test_nobody_listens(machine, project):
    """A registry that is not there costs a line and little time."""
    answer = machine.torchship("build", project, "--cache-from", "127.0.0.1:9/me/x:v1")
    assert "nothing is taken from 127.0.0.1:9/me/x:v1" in answer.err
    assert answer.digest == machine.build(project)


def poisoned(machine, project, name, folder) -> str:
    """Publish an image whose first layer is not what the recipe of its key gives."""
    machine.build(project, "-t", "good")
    store = machine.store
    good = json.loads(store.read(store.find("good")))
    config = json.loads(store.blobs.path(Digest.parse(good["config"]["digest"])).read_bytes())
    data, diff_id = images.layer("poison", 1000)
    evil = Store.open(folder)
    written = evil.put(data, mediatypes.OCI_GZIP)
    good["layers"][0] |= {"digest": str(written.digest), "size": written.size}
    config["rootfs"]["diff_ids"][0] = str(diff_id)
    described = evil.put(canonical.encode(config), mediatypes.OCI_CONFIG)
    good["config"] |= {"digest": str(described.digest), "size": described.size}
    for layer in good["layers"][1:]:
        evil.put(store.blobs.path(Digest.parse(layer["digest"])).read_bytes(), "x/y")
    assert KEY in good["layers"][0]["annotations"]
    top = evil.put(canonical.encode(good), mediatypes.OCI_MANIFEST)
    reference = Reference.parse(name)
    push(evil, top, reference, progress=SILENT, registry=Registry(reference.registry))
    return str(written.digest)


def test_what_somebody_published_is_forgotten_after_the_build(
    machine, project, repository, tmp_path
):
    """A layer that lies about its recipe is in the image that was built of it, and in no other."""
    name = f"{repository}:evil"
    lie = poisoned(machine, project, name, tmp_path / "evil")
    victim = machine.with_store("victim")
    built = victim.build(project, "-t", "one", "--cache-from", name)
    found = json.loads(victim.store.read(victim.store.find("one")))
    assert found["layers"][0]["digest"] == lie
    assert built != machine.build(project)
    victim.torchship("save", "one", "-o", tmp_path / "one.tar")  # now its bytes are here
    assert victim.store.has(Digest.parse(lie))
    assert victim.build(project) == machine.build(project)
    assert lie not in "".join(path.read_text() for path in (victim.home / "layers").iterdir())


# -- an image whose layers are elsewhere


def test_a_save_brings_what_is_elsewhere(machine, bare, project, repository, tmp_path):
    """The archive is whole, and the store is, from then on."""
    machine.build(project, "-t", f"{repository}:v1", "--push")
    edit(project)
    bare.build(project, "-t", f"{repository}:v1", "--push")
    answer = bare.torchship("save", f"{repository}:v1", "-o", tmp_path / "bare.tar")
    assert f"from {repository}" in answer.err
    machine.build(project, "-t", f"{repository}:v1")
    machine.torchship("save", f"{repository}:v1", "-o", tmp_path / "full.tar")
    assert (tmp_path / "bare.tar").read_bytes() == (tmp_path / "full.tar").read_bytes()
    verify(bare.home)


def test_a_push_elsewhere_takes_layers_from_where_they_are(
    machine, bare, project, repository, proxy, tmp_path
):
    """In the same registry they are mounted; to another one they are sent, past the store."""
    from tests.integration import registry as registries

    machine.build(project, "-t", f"{repository}:v1", "--push")
    edit(project)
    proxy.seen.clear()
    answer = bare.torchship(
        *("build", project, "--push", "-t", f"{repository}/next:v1"),
        *("--cache-from", f"{repository}:v1"),
    )
    assert "mounted 0 B" not in answer.err
    assert proxy.count("GET", "/blobs/sha256") == 1
    with registries.running(tmp_path / "other") as other:
        name = f"{other.host}/me/x:v1"
        again = bare.with_store("third")
        digest = again.build(project, "--push", "-t", name, "--cache-from", f"{repository}:v1")
        machine.with_store("fourth").torchship("pull", name)
        assert machine.with_store("fourth").store.find(name).digest == Digest.parse(digest)
        assert verify(again.home) == 3


def test_what_is_nowhere_any_more_is_a_clear_error(machine, bare, project, proxy, tmp_path):
    """Names the layer, where it was, and what to do."""
    from tests.integration import registry as registries

    with registries.running(tmp_path / "other") as other:
        name = f"{other.host}/me/x:v1"
        machine.build(project, "-t", name, "--push")
        edit(project)
        bare.build(project, "-t", "mnist", "--cache-from", name)
        shutil.rmtree(other.storage / "docker/registry/v2/repositories/me/x/_layers")
        said = bare.torchship("save", "mnist", "-o", tmp_path / "x.tar").fails(
            "lacks the blob sha256:", f"and so does {other.host}/me/x"
        )
    assert "torchship build" in said
    said = bare.torchship("save", "mnist", "-o", tmp_path / "x.tar").fails("could not be reached")
    assert not (tmp_path / "x.tar").exists()


def test_a_base_by_reference_is_not_fetched_where_the_image_has_it(
    machine, bare, repository, proxy, tmp_path
):
    """Its layers stand in the published image; only its manifest and config are read."""
    base = Store.open(tmp_path / "base")
    python = {"usr/local/bin/python3.11": b"\x7fELF", "usr/local/bin/python3": "python3.11"}
    made = bases.image(base, [bases.layer(base, python)], environment=["PYTHON_VERSION=3.11.2"])
    reference = Reference.parse(f"{repository}/base:v1")
    push(base, made, reference, progress=SILENT, registry=Registry(proxy.host))
    settings = f'bytecode = "none"\nbase = "{reference}"\n'
    project = machine.project(settings=settings, requirements__txt="leaf\n")
    machine.build(project, "-t", f"{repository}:v1", "--push")
    edit(project)
    proxy.seen.clear()
    digest = bare.build(project, "-t", f"{repository}:v1", "--push")
    assert proxy.count("GET", "/blobs/sha256") == 2  # the configs of both
    assert digest == machine.build(project)
