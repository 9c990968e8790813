"""Images that stand on published ones, for this machine's platform and for another."""

from __future__ import annotations

import gzip

import pytest
from tests import bases
from tests.engines.conftest import add_root, linux, write_layer
from tests.integration import proxy as faults
from tests.machine import debian_packages, machine

from torchship import pipeline
from torchship.engines import python
from torchship.errors import EngineError
from torchship.oci.image import read_image
from torchship.oci.mediatypes import OCI_GZIP
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT
from torchship.project.project import load

__all__ = ["debian_packages", "machine"]

HOST = Platform.host()
OTHER = Platform("linux", "arm64" if HOST.architecture == "amd64" else "amd64")
HEADER = "usr/include/python3.11/patchlevel.h"


@pytest.fixture(scope="session")
def root_layer(tmp_path_factory):
    """Return a layer, and its bytes, with Debian's Python as this machine has it."""
    path = tmp_path_factory.mktemp("layer") / "root.tgz"
    return write_layer(path, add_root), path.read_bytes()


@pytest.fixture
def on_base(machine, tmp_path, monkeypatch):
    """Give a project on a published base of two platforms, on a machine without that Python."""
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(python, "on_host", lambda _: None)

    def make(base):
        settings = f'base = "{base}"\nplatforms = ["{HOST}", "{OTHER}"]\n'
        return load(machine.project(settings=settings, requirements__txt="leaf\n"))

    return make


@pytest.fixture
def published(root_layer, tmp_path):
    """Serve a base for both platforms; only this machine's has a Python that starts."""
    layer, data = root_layer
    there = Store.open(tmp_path / "there")
    there.put(data, OCI_GZIP)

    def header(version):
        return bases.layer(there, {HEADER: b'#define PY_VERSION "%s"\n' % version.encode()})

    def serve(here="3.11.2", elsewhere="3.11.2"):
        programs = {"usr/bin/python3.11": b"of another processor", "usr/bin/python3": "python3.11"}
        images = {
            HOST.architecture: bases.image(
                there, [layer, header(here)], architecture=HOST.architecture
            ),
            OTHER.architecture: bases.image(
                there,
                [bases.layer(there, programs), header(elsewhere)],
                architecture=OTHER.architecture,
            ),
        }
        return bases.serve(server, there, bases.index(there, images))

    with faults.running() as server:
        yield serve


def built(project, platforms, locked):
    """Lock for some platforms, build for some; return the store and the image of the last."""
    store = Store.open()
    pins = pipeline.lock(
        project, project.root / "torchship.lock", store=store, platforms=locked, progress=SILENT
    )
    top = pipeline.build(
        project, pins, store=store, platforms=platforms, names=["x:y"], progress=SILENT
    )
    return store, read_image(store, top, platforms[-1])


def bytecode(store, image):
    """Return what the bytecode layers of an image hold."""
    return [
        gzip.decompress(store.blobs.path(layer.digest).read_bytes())
        for layer in image.layers
        if layer.title.startswith("bytecode of")
    ]


@linux
@pytest.mark.parametrize("locked", [(HOST, OTHER), (OTHER,)], ids=["both locked", "one locked"])
def test_bytecode_for_another_platform_is_compiled_on_the_bases_image_for_this_one(
    on_base, published, locked
):
    """Where no Python of that version is here, the same base for this machine has one."""
    store, image = built(on_base(published()), (OTHER,), locked)
    (made,) = bytecode(store, image)
    assert b"leaf" in made
    assert b".cpython-311.pyc" in made


@linux
def test_a_base_that_moved_on_does_not_compile_for_an_older_lock(on_base, published):
    """Another version's bytecode is not taken: the error says how to lock both at once."""
    with pytest.raises(EngineError, match=r"needs Python 3\.11\.9.* has 3\.11\.2") as caught:
        built(on_base(published(elsewhere="3.11.9")), (OTHER,), (OTHER,))
    assert f"--platform {HOST} --platform {OTHER}" in caught.value.hint
