"""From a project to a job of Kubernetes: built, pushed, pulled and run as real containers.

The API server is the tests' own, kubectl and the containers (Podman's) are real.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.integration import kubernetes
from tests.integration.containers import public_folder
from tests.integration.kubelet import Contained
from tests.integration.registry import require
from tests.integration.test_end_to_end import bare, machine, shared

from torchship.runs.publishing import read

__all__ = ["bare", "machine", "shared"]

pytestmark = [pytest.mark.network, pytest.mark.engine]

MAIN = """\
import json, os, sys
out = os.environ["TORCHSHIP_OUTPUT"]
lines = open("/proc/self/status").read().splitlines()
status = dict(line.split(":\\t") for line in lines if ":\\t" in line)
print(json.dumps({
    "uid": os.getuid(), "pid": os.getpid(), "parent": os.getppid(), "cwd": os.getcwd(),
    "capabilities": status["CapEff"], "bounding": status["CapBnd"], "arguments": sys.argv[1:],
}))
json.dump({"accuracy": 0.75}, open(f"{out}/metrics.json", "w"))
os.mkdir(f"{out}/deep")
open(f"{out}/deep/model.bin", "wb").write(os.urandom(2_000_000))
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Give a cluster whose pods are Podman's containers."""
    require("kubectl")
    require("podman")
    if not kubernetes.speaks_websockets():
        pytest.skip("this kubectl speaks SPDY for exec; 1.31 and newer speak WebSocket")
    if os.geteuid() != 0:
        pytest.skip("rootless podman needs subordinate ids on this machine")
    with public_folder() as folder:
        settings = ["[containers]", 'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]']
        settings += ["[engine]", 'cgroup_manager = "cgroupfs"', 'events_logger = "file"']
        settings += ['runtime = "runc"'] if shutil.which("runc") else []
        (folder / "containers.conf").write_text("\n".join(settings))
        monkeypatch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
        monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
        for driver in ("overlay", "vfs"):  # the first needs a file system that can be under it
            (folder / "storage.conf").write_text(
                f'[storage]\ndriver = "{driver}"\n'
                f'graphroot = "{folder}/{driver}"\nrunroot = "{folder}/run"\n'
            )
            environment = {k: v for k, v in os.environ.items() if k != "DOCKER_CONFIG"}
            if (
                subprocess.run(["podman", "info"], capture_output=True, env=environment).returncode
                == 0
            ):
                break
        with kubernetes.running(tmp_path / "cluster") as running:
            running.container = Contained
            yield running
            assert running.left() == []


@pytest.mark.slow
def test_a_project_becomes_a_job(machine, bare, cluster, shared_registry):
    """Its program runs as an ordinary user without rights; its outputs and record come back."""
    (bare / "main.py").write_text(MAIN)
    reference = f"{shared_registry.host}/me/contained:v1"
    answer = machine.torchship("build", bare, "-t", reference, "--push")
    assert answer.status == 0, answer.err
    there = machine.with_environment(KUBECONFIG=cluster.kubeconfig)
    command = ("python", "main.py", "--odd", "$(HOME) 'it")
    answer = there.torchship("launch", reference, "--on=kubernetes", "--", *command)
    assert answer.status == 0, answer.err
    folder = machine.root / Path(answer.out.strip()).parent
    (log,) = folder.glob("*/stdout.log")
    seen = json.loads(log.read_text())
    assert (seen["uid"], seen["cwd"]) == (1000, "/workspace")
    assert seen["parent"] == 1  # the program that keeps the pod is its first
    assert int(seen["capabilities"], 16) == int(seen["bounding"], 16) == 0
    assert seen["arguments"] == ["--odd", "$(HOME) 'it"]
    (model,) = folder.glob("*/output/deep/model.bin")
    assert (model.stat().st_size, model.stat().st_uid) == (2_000_000, os.geteuid())
    made = read(machine.root / answer.out.strip()).record
    assert made.runs[0].metrics == {"accuracy": 0.75}
    assert made.software is not None
    assert made.hardware is not None
