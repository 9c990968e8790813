"""The model Dockerfile of a project, built and run by a real Docker Engine of the old kind."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from pathlib import Path

import pytest
from tests.integration.engines import _QuietHandler
from tests.wheels import make_wheel

from torchship.digest import Digest
from torchship.project.dockerfile import render
from torchship.project.project import load

pytestmark = [pytest.mark.engine, pytest.mark.network, pytest.mark.slow]

TRICKY = "a \"b\" $HOME \\ 'c' ${PATH}"
MAIN = """
import hashlib, json, os, pathlib, shutil, sys
import leaf, other
print(json.dumps({
    "user": os.getuid(),
    "directory": os.getcwd(),
    "files": sorted(os.listdir()),
    "arguments": sys.argv[1:],
    "tricky": os.environ["TRICKY"],
    "unbuffered": os.environ["PYTHONUNBUFFERED"],
    "indexes": sorted(name for name in os.environ if name.startswith("PIP_")),
    "python": sys.executable,
    "answer": leaf.ANSWER,
    "package": shutil.which("tree"),
    "data": {
        name: hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest()
        for name in ("/data/served.gz", "/workspace/own.bin")
    },
}))
pathlib.Path("written").write_text("the directory is the user's")
pathlib.Path(os.environ["TORCHSHIP_OUTPUT"], "metrics.json").write_text("so is this one")
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Serve an index of two wheels, and a data file, on loopback; give its address."""
    root = tmp_path_factory.mktemp("served")
    make_wheel(root / "simple" / "leaf", "leaf", "1.0")
    make_wheel(root / "simple" / "other", "other", "1.0", requires=["leaf"])
    (root / "served.gz").write_bytes(b"all the data there is")
    handler = functools.partial(_QuietHandler, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def project(root: Path, address: str, **files: str) -> Path:
    """Write a project that uses all that a Dockerfile can say, and its Dockerfile."""
    root.mkdir()
    served, own = b"all the data there is", b"a file that has no address"
    settings = f"""
[tool.torchship]
name = "all-of-it"
packages = ["tree"]
command = ["python", "main.py", "it's", "$HOME", "two words"]
environment = {{ TRICKY = {json.dumps(TRICKY)} }}
[[tool.torchship.data]]
path = "/data/served.gz"
sha256 = "{Digest.of(served).hex}"
urls = ["{address}/nothing-here", "{address}/simple/", "{address}/served.gz"]
[[tool.torchship.data]]
path = "own.bin"
sha256 = "{Digest.of(own).hex}"
"""
    files = {"main.py": MAIN, ".dockerignore": "Dockerfile\nmore\n!more/deep.txt\n", **files}
    files["pyproject.toml"] = files.get("pyproject.toml", "") + settings
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    (root / "own.bin").write_bytes(own)
    (root / "Dockerfile").write_text(render(load(root)))
    return root


@pytest.mark.parametrize("kind", ["requirements", "pyproject"])
def test_it_builds_and_runs(dockerd, base_image, served, tmp_path, kind):
    """Every setting reaches the program: its command, environment, data, user and dependencies."""
    files = {
        "requirements.txt": "-r more/deep.txt\nleaf\n",
        "more/deep.txt": "other  # needs leaf\n",
    }
    if kind == "pyproject":
        text = '[project]\nname = "x"\nversion = "1"\ndependencies = ["leaf>=1", "other"]\n'
        files = {"pyproject.toml": text}
    root = project(tmp_path / kind, served, **files)
    tag = f"me/{kind}:v0.1"
    sealed = ("--network=host", f"--build-arg=BASE={base_image}")
    index = f"--build-arg=PIP_INDEX_URL={served}/simple/"
    dockerd.docker("build", *sealed, index, ".", "-t", tag, cwd=root)
    shown = json.loads(dockerd.docker("run", "--rm", "--network=none", tag))
    there = {"main.py", "own.bin", ".dockerignore", "pyproject.toml"}
    there |= {name.partition("/")[0] for name in files}
    assert shown == {
        "user": 1000,
        "directory": "/workspace",
        "files": sorted(there),
        "arguments": ["it's", "$HOME", "two words"],
        "tricky": TRICKY,
        "unbuffered": "1",
        "indexes": [],
        "python": "/opt/venv/bin/python",
        "answer": 42,
        "package": "/usr/bin/tree",
        "data": {
            "/data/served.gz": Digest.of(b"all the data there is").hex,
            "/workspace/own.bin": Digest.of(b"a file that has no address").hex,
        },
    }


def test_other_bytes_end_the_build(dockerd, base_image, served, tmp_path):
    """Where no address gives the file that was pinned, there is no image."""
    root = project(tmp_path / "wrong", served)
    text = (root / "Dockerfile").read_text().replace(f"{served}/served.gz", f"{served}/simple/")
    (root / "Dockerfile").write_text(text)
    sealed = ("--network=host", f"--build-arg=BASE={base_image}")
    said = dockerd.docker("build", *sealed, ".", "-t", "me/wrong", check=False, cwd=root)
    assert "no address gave /data/served.gz" in said
    assert "Successfully built" not in said
