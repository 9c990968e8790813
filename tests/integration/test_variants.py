"""Two images for one platform under one name: what each tool takes of them.

docs/decisions/0005-variants.md rests on this.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.integration.registry import require
from tests.integration.test_interop import Tree, programs, run

from torchship.engines.nvidia import survey
from torchship.layers.archive import Entry
from torchship.layers.layer import Materials
from torchship.oci.assemble import assemble, index
from torchship.oci.image import held as held_manifests
from torchship.oci.image import read_one
from torchship.oci.push import push
from torchship.oci.reference import Reference
from torchship.oci.schema2 import as_docker
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT
from torchship.project.project import Project

pytestmark = pytest.mark.engine

VARIANTS = ("cpu", "cu130")
LABEL = "dev.torchship.variant"
TEMPLATE = f'{{{{index .Config.Labels "{LABEL}"}}}}'
FORMS = ("oci", "oci-turned", "docker")


@pytest.fixture(scope="module")
def published(shared_registry, tmp_path_factory):
    """Push two variants, in both orders and in Docker's words; return their names by form."""
    folder = tmp_path_factory.mktemp("variants")
    store = Store.open(folder / "home")
    materials = Materials(files={}, scratch=folder)
    shared = store.derive(programs(), materials)
    project = Project(root=folder, name="variants", command=("/bin/cat", "/variant"))
    made = []
    for name in VARIANTS:
        tree = Tree(title=name, entries=((Entry(path="variant", size=len(name)), name.encode()),))
        layers = [shared, store.derive(tree, materials)]
        made.append(
            assemble(store, project=project, platform=Platform.host(), layers=layers, variant=name)
        )
    tops = {
        "oci": index(store, made),
        "oci-turned": index(store, made[::-1]),
        "docker": as_docker(store, index(store, made)),
    }
    names = {}
    for form, top in tops.items():
        names[form] = Reference.parse(f"{shared_registry.host}/variants/{form}:v1")
        push(store, top, names[form], progress=SILENT)
    return names


def first(form: str) -> str:
    """Return the variant that stands first."""
    return VARIANTS[form == "oci-turned"]


@pytest.mark.parametrize("form", FORMS)
def test_docker_takes_the_first(dockerd, published, form):
    """The Engine with its own store pulls one image: the first of its platform."""
    dockerd.docker("pull", published[form])
    assert dockerd.docker("inspect", "--format", TEMPLATE, published[form]).strip() == first(form)
    assert dockerd.docker("run", "--rm", "--network=none", published[form]) == first(form)


def test_docker_takes_any_by_its_digest(dockerd, published, tmp_path):
    """Who wants another variant without torchship names its manifest."""
    raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{published['oci']}")
    entries = {each["annotations"][LABEL]: each for each in json.loads(raw)["manifests"]}
    name = f"{published['oci'].name}@{entries['cu130']['digest']}"
    dockerd.docker("pull", name)
    assert dockerd.docker("run", "--rm", "--network=none", name) == "cu130"


@pytest.mark.parametrize("form", FORMS)
def test_skopeo_takes_the_first(published, form):
    """Looked at without a choice, the name is the first's."""
    require("skopeo")
    shown = run("skopeo", "inspect", "--tls-verify=false", f"docker://{published[form]}")
    assert json.loads(shown)["Labels"][LABEL] == first(form)


def test_a_copy_of_all_keeps_the_marks(published, tmp_path):
    """Skopeo copies an index with the annotations beside its manifests."""
    require("skopeo")
    source = f"docker://{published['oci']}"
    layout = tmp_path / "copy"
    run("skopeo", "copy", "-q", "--all", "--src-tls-verify=false", source, f"oci:{layout}:x")
    raw = run("skopeo", "inspect", "--raw", f"oci:{layout}:x")
    assert [each["annotations"][LABEL] for each in json.loads(raw)["manifests"]] == list(VARIANTS)


@pytest.mark.parametrize("form", FORMS)
def test_podman_takes_the_first(published, form):
    """Podman pulls one image: the first of its platform."""
    require("podman")
    if os.geteuid() != 0:
        pytest.skip("rootless podman needs subordinate ids on this machine")
    # A short path: podman's runroot ends at 50 characters.
    storage = Path(tempfile.mkdtemp(prefix="podman-"))
    podman = ["podman", f"--root={storage}/root", f"--runroot={storage}/run"]
    podman += ["--storage-driver=vfs", "--cgroup-manager=cgroupfs"]
    environment = {key: value for key, value in os.environ.items() if key != "DOCKER_CONFIG"}
    try:
        run(*podman, "pull", "-q", "--tls-verify=false", published[form], env=environment)
        shown = run(*podman, "inspect", "--format", TEMPLATE, published[form], env=environment)
        assert shown.strip() == first(form)
    finally:
        shutil.rmtree(storage)


@pytest.mark.parametrize("form", FORMS)
def test_containerd_unpacks_the_first(dockerd, published, form, tmp_path):
    """Its bare client fetches both, and what it mounts is the first."""
    require("ctr")
    socket = dockerd.socket.parent / "exec" / "containerd" / "containerd.sock"
    if not socket.exists():
        pytest.skip("this Docker Engine shares the machine's containerd")
    ctr = ("ctr", f"--address={socket}", f"--namespace={form}")
    run(*ctr, "image", "pull", "--plain-http", published[form])
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    run(*ctr, "image", "mount", published[form], mounted)
    try:
        assert (mounted / "variant").read_text() == first(form)
    finally:
        run("umount", mounted)
        run(*ctr, "image", "unmount", "--rm", mounted)
        run(*ctr, "image", "rm", "--sync", published[form])


@pytest.fixture
def torchship(tmp_path):
    """Run the command on a store of its own; returns a function that gives its output."""
    environment = {**os.environ, "TORCHSHIP_HOME": str(tmp_path / "home")}

    def command(*words, status=0):
        done = subprocess.run(
            [sys.executable, "-m", "torchship", *map(str, words)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + (done.stderr if status else "")

    return command


def held(folder: Path, name: Reference) -> list[str]:
    """Return which variants of an image the store there has, all layers included."""
    store = Store.open(folder / "home")
    images = (read_one(store, found) for found in held_manifests(store, store.find(str(name))))
    return [
        image.variant for image in images if all(store.has(layer.digest) for layer in image.layers)
    ]


@pytest.mark.parametrize("form", FORMS)
def test_torchship_pulls_the_chosen_one_alone(published, torchship, tmp_path, form):
    """By the machine's GPU, or by name; a second one shares what is there; or all at once."""
    if survey().gpus:
        pytest.skip("this machine has a GPU")
    in_order = list(VARIANTS[:: -1 if form == "oci-turned" else 1])
    torchship("pull", published[form])
    assert held(tmp_path, published[form]) == ["cpu"]
    assert "cu130" not in torchship("images")
    torchship("pull", published[form], "--variant", "cu130")
    assert held(tmp_path, published[form]) == in_order
    torchship("rmi", published[form])
    torchship("prune")
    torchship("pull", published[form], "--all-platforms")
    assert held(tmp_path, published[form]) == in_order


def test_a_variant_that_is_not_there_is_told(published, torchship):
    """With those that are; and nothing is named."""
    said = torchship("pull", published["oci"], "--variant", "cu118", status=1)
    assert "holds no variant cu118" in said
    assert "it holds: cpu, cu130" in said
    assert "variants/oci" not in torchship("images")


def test_torchship_runs_what_suits_the_machine(published, torchship, tmp_path):
    """Without a GPU the CPU's, wherever it stands; another by name, brought when it is wanted."""
    if survey().gpus:
        pytest.skip("this machine has a GPU")
    if os.geteuid() != 0 and not Path("/proc/self/ns/user").exists():
        pytest.skip("the native engine needs namespaces")
    name = published["oci-turned"]
    native = ("run", "--engine", "native")
    assert torchship(*native, name) == "cpu"
    assert held(tmp_path, name) == ["cpu"]
    assert torchship(*native, "--variant", "cu130", name) == "cu130"
    assert torchship(*native, "--gpus", "none", name) == "cpu"
    said = torchship(*native, "--variant", "cu118", name, status=125)
    assert "holds no variant cu118 for linux/amd64: it has" in said
