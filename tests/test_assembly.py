"""Images that stand on published ones, for this platform and for others; and what they name."""

from __future__ import annotations

import gzip
import tarfile

import pytest
from msgspec.structs import replace
from tests import bases
from tests.engines.conftest import add_root, linux, write_layer
from tests.integration import proxy as faults
from tests.machine import PLAIN, debian_packages, machine

from torchship import pipeline
from torchship.engines import python
from torchship.errors import EngineError, LockError
from torchship.oci.image import read_image
from torchship.oci.mediatypes import OCI_GZIP
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT
from torchship.project import lock as lockfile
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


def venv(store, image):
    """Return what the virtual environment of an image says of its Python."""
    layer = next(layer for layer in image.layers if layer.title.startswith("/opt/venv"))
    with tarfile.open(store.blobs.path(layer.digest)) as archive:
        link = archive.getmember("opt/venv/bin/python").linkname
        settings = archive.extractfile("opt/venv/pyvenv.cfg").read().decode()
    return link, dict(line.split(" = ") for line in settings.splitlines())


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


@pytest.mark.parametrize("environment", [[], ["PYTHON_VERSION=3.11"], ["PYTHON_VERSION=3.11.2"]])
@pytest.mark.parametrize("prefix", ["usr", "usr/local"])
def test_an_image_starts_the_python_that_its_base_has(on_base, served, environment, prefix):
    """Whatever a variable says of it, the link leads to where it is; an older lock's, too."""
    files = {
        f"{prefix}/bin/python3.11": b"",
        f"{prefix}/bin/python3": "python3.11",
        f"{prefix}/include/python3.11/patchlevel.h": b'#define PY_VERSION "3.11.2"\n',
    }
    project = replace(on_base(served(files, environment)), bytecode="none")
    store, image = built(project, (HOST,), (HOST,))
    link, settings = venv(store, image)
    assert link == settings["executable"] == f"/{prefix}/bin/python3.11"
    assert (settings["home"], settings["version"]) == (f"/{prefix}/bin", "3.11.2")
    older = without_interpreter(lockfile.load(project.root / "torchship.lock"))
    top = pipeline.build(
        project, older, store=store, platforms=(HOST,), names=["x:y"], progress=SILENT
    )
    assert top.digest == image.descriptor.digest


def test_an_older_lock_of_another_python_is_told(on_base, served):
    """It believed a variable: what the base has is another, and bytecode would not be for it."""
    files = {"usr/bin/python3.11": b"", HEADER: b'#define PY_VERSION "3.11.2"\n'}
    project = replace(on_base(served(files, [])), bytecode="none")
    built(project, (HOST,), (HOST,))
    older = without_interpreter(lockfile.load(project.root / "torchship.lock"), python="3.11.9")
    with pytest.raises(LockError, match=r"has Python 3\.11\.2, and the lock says 3\.11\.9"):
        pipeline.build(
            project, older, store=Store.open(), platforms=(HOST,), names=["x:y"], progress=SILENT
        )


@pytest.fixture
def served(tmp_path):
    """Serve a base of one layer of files for this machine's platform."""
    there = Store.open(tmp_path / "there")

    def serve(files, environment):
        top = bases.image(
            there,
            [bases.layer(there, files)],
            environment=environment,
            architecture=HOST.architecture,
        )
        return bases.serve(server, there, top)

    with faults.running() as server:
        yield serve


def without_interpreter(lock, **changes):
    """Return a lock as it was before locks said where a base's Python is."""
    entries = tuple(
        replace(entry, base=replace(entry.base, interpreter=""), **changes)
        for entry in lock.platforms
    )
    return replace(lock, platforms=entries)


def test_packages_in_src_are_found_where_they_are_in_the_image(machine):
    """What .dockerignore leaves out of the image does not count."""
    root = machine.project(settings=PLAIN + '[project]\nname = "own"\n')
    (root / "src" / "own").mkdir(parents=True)
    (root / "src" / "own" / "__init__.py").touch()

    def variables():
        store = machine.store
        return read_image(
            store, store.find(machine.build(root)), Platform("linux", "amd64")
        ).environment

    assert variables()["PYTHONPATH"] == "/workspace/src"
    (root / ".dockerignore").write_text("src\n")
    assert "PYTHONPATH" not in variables()
    (root / ".dockerignore").unlink()
    written = machine.torchship("dockerfile", root)
    assert "\nENV PYTHONPATH=/workspace/src\n" in written.out
