"""The tutorial's own way, word for word, on a real Docker Engine.

docker build . -t me/pytorchmnistexample:v0.1
docker run -it me/pytorchmnistexample:v0.1 python main.py
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TAG = "me/pytorchmnistexample:v0.1"

pytestmark = [pytest.mark.engine, pytest.mark.network, pytest.mark.slow]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Copy the example as somebody works in it, with what runs leave behind."""
    folder = tmp_path_factory.mktemp("tutorial") / "mnist"
    shutil.copytree(EXAMPLES / "mnist", folder, ignore=shutil.ignore_patterns("data", "runs"))
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "left-here").write_text("a download\n")
    return folder


@pytest.fixture(scope="module")
def built(dockerd, base_image, torch_index, project) -> str:
    """Run the tutorial's `docker build`, with only what a sealed machine has to add."""
    sealed = ("--network=host", f"--build-arg=BASE={base_image}")
    index = f"--build-arg=PIP_INDEX_URL={torch_index}"
    return dockerd.docker("build", *sealed, index, ".", "-t", TAG, cwd=project)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """Draw a few synthetic digits, readable by the image's user."""
    folder = tmp_path_factory.mktemp("digits")
    script = [sys.executable, str(EXAMPLES / "synthetic_digits.py"), str(folder)]
    subprocess.run([*script, "--train", "300", "--test", "100"], check=True)
    for path in (folder, *folder.parents):
        if path.owner() == "root" and path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    return folder


def test_build_and_run_word_for_word(dockerd, built, digits):
    """The tutorial's image trains on a terminal, and logs as PyTorch's own example does."""
    mount = f"-v{digits}:/data/mnist:ro"
    status, shown = dockerd.on_terminal(
        "run", mount, "-it", TAG, "python", "main.py", "--epochs", "2", "--log-interval", "2"
    )
    assert status == 0, shown
    assert f"Successfully tagged {TAG}" in built
    assert "Data: not MNIST, 300 training and 100 test images from /data/mnist" in shown
    assert re.search(r"^Train Epoch: 2 \[128/300 \(40%\)\]\tLoss: \d+\.\d{6}$", shown, re.M)
    assert re.search(
        r"^Test set: Average loss: \d+\.\d{4}, Accuracy: \d+/100 \(\d+%\)$", shown, re.M
    )


def test_default_command_and_output(dockerd, built, digits, tmp_path):
    """Without a command the image runs main.py, and what it writes can be copied out."""
    dockerd.docker("run", f"-v{digits}:/data/mnist:ro", "--name=plain", TAG, timeout=600)
    dockerd.docker("cp", "plain:/output/metrics.json", tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["epochs"] == 14


def test_not_root_and_nothing_left_behind(dockerd, built):
    """The program is not root, and what .dockerignore names is not in the image."""
    shown = dockerd.docker("run", TAG, "sh", "-c", "id -u; ls -A")
    user, *files = shown.split()
    assert user == "1000"
    assert set(files) - {"torchship.lock"} == {"main.py", "pyproject.toml", "requirements.txt"}


def test_no_data_and_no_network(dockerd, built):
    """Where no mirror of MNIST answers, the container says so in one line and exits with 1."""
    status, shown = dockerd.on_terminal("run", "--network=none", "-it", TAG, "python", "main.py")
    assert status == 1
    assert shown.splitlines()[-1].startswith("main.py: error: no mirror gave train-images")
    assert "Traceback" not in shown


def test_an_edit_does_not_install_again(dockerd, built, base_image, torch_index, project):
    """After an edit of main.py the build takes the installed dependencies from its cache."""
    with (project / "main.py").open("a") as file:
        file.write("\n# an edit\n")
    sealed = ("--network=host", f"--build-arg=BASE={base_image}")
    index = f"--build-arg=PIP_INDEX_URL={torch_index}"
    shown = dockerd.docker("build", *sealed, index, ".", "-t", f"{TAG}-edited", cwd=project)
    install = shown[shown.index("pip install") :]
    assert "Using cache" in install[: install.index("COPY . .")]
