"""Jobs of Kubernetes by the real kubectl, against an API server that runs pods as processes."""

import os
import signal
import subprocess
import sys
import time

import kubernetes_validate
import pytest
import yaml
from tests.integration import images, kubernetes
from tests.integration.registry import require
from tests.launch.kubernetes.jobs import IMAGE, REFERENCE

from torchship import canonical
from torchship.engines.request import Request
from torchship.errors import EngineError, HostileInput, RunError
from torchship.launch.job import Shape
from torchship.launch.kubernetes import cluster as deleting
from torchship.launch.kubernetes import following, output, pod
from torchship.launch.kubernetes.cluster import Kubernetes
from torchship.launch.kubernetes.settings import Settings
from torchship.oci import mediatypes
from torchship.oci.push import push
from torchship.oci.reference import Reference
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT
from torchship.runs.publishing import read

pytestmark = pytest.mark.engine

WRITES = """
import json, os, sys
out = os.environ["TORCHSHIP_OUTPUT"]
print("hello", *sys.argv[1:], flush=True)
print("a warning", file=sys.stderr, flush=True)
os.mkdir(f"{out}/deep")
open(f"{out}/deep/model.pt", "wb").write(bytes(range(256)) * 4000)
json.dump({"test_accuracy": 0.5}, open(f"{out}/metrics.json", "w"))
"""
# Stands in for torchrun where torch is not installed: starts the node's program, with its rank.
TORCHRUN = """#!/bin/sh
while [ "${1#--n}" != "$1" ] || [ "${1#--m}" != "$1" ]; do
    [ "$1" = --no-python ] && { shift; exec "$@"; }
    shift
done
exec python3 "$@"
"""
ONE_FAILS = """
import os, sys, time
rank = int(os.environ["PET_NODE_RANK"])
print("rank", rank, "of", os.environ["PET_MASTER_ADDR"], flush=True)
if rank == 1:
    time.sleep(1)
    sys.exit("rank 1 has had enough")
time.sleep(60)
"""


ONE = Shape()


class Heard:
    """Progress that is kept."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        """Keep a line."""
        self.lines.append(line)

    def task(self, label, total=None):
        """Begin nothing."""
        return self

    def advance(self, amount):
        """Count nothing."""

    def finish(self):
        """End nothing."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Look at jobs often."""
    monkeypatch.setattr(following, "_SOON", 0.1)
    monkeypatch.setattr(following, "_LATER", 0.5)
    monkeypatch.setattr(following, "_UNHEARD", 0.5)
    monkeypatch.setattr(output, "_PAUSE", 0.1)
    monkeypatch.setattr(pod, "GRACE", 1)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Give one cluster for all tests: kubectl asks a cluster once what it knows."""
    require("kubectl")
    if not kubernetes.speaks_websockets():
        pytest.skip("this kubectl speaks SPDY for exec; 1.31 and newer speak WebSocket")
    folder = tmp_path_factory.mktemp("cluster")
    with kubernetes.running(folder) as cluster:
        tool = cluster.tools / "torchrun"
        tool.write_text(TORCHRUN)
        tool.chmod(0o755)
        yield cluster


@pytest.fixture
def cluster(running, monkeypatch):
    """Give a cluster that the user's kubectl is configured for, and in which nothing is wrong."""
    monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig))
    monkeypatch.setenv("HOME", str(running.kubeconfig.parent))
    running.faults = kubernetes.Faults()
    running.created.clear()
    yield running
    assert running.left() == [], "the job, or something of it, is left behind"


@pytest.fixture
def launch(tmp_path):
    """Return what runs a program as a job, and tells what became of it."""

    def launched(code, *arguments, shape=ONE, keeps=True, **settings):
        heard, folder = Heard(), tmp_path / "output"
        if keeps:
            folder.mkdir()
        log = tmp_path / "stdout.log"
        with (tmp_path / "shown").open("wb") as shown:
            request = Request(
                image=IMAGE,
                command=("python3", "-c", code, *arguments),
                output=folder if keeps else None,
                log=log,
                stdout=shown.fileno(),
            )
            engine = Kubernetes(REFERENCE, shape, settings=Settings(**settings), progress=heard)
            try:
                status = engine.run(request)
            finally:
                launched.heard = heard.lines
        return status, log.read_text(), folder

    return launched


@pytest.mark.parametrize("kind", ["job", "trainjob"])
def test_a_job_is_run_followed_and_fetched(cluster, launch, tmp_path, kind):
    """What the program prints and writes is here when it has ended, and nothing is left there."""
    status, log, output = launch(WRITES, "$(HOME)", "it's", kind=kind)
    assert (status, log) == (0, "hello $(HOME) it's\na warning\n")
    assert (tmp_path / "shown").read_text() == log
    written = {
        str(p.relative_to(output)): p.stat().st_size for p in output.rglob("*") if p.is_file()
    }
    assert written == {"deep/model.pt": 1_024_000, "metrics.json": 22}
    assert output.stat().st_mode & 0o777 == 0o755
    assert [p.name for p in tmp_path.glob(".arriving-*")] == []
    made = next(one for one in cluster.created if one["kind"] in ("Job", "TrainJob"))
    assert made["kind"].lower() == kind


def test_a_question_is_answered_alone(cluster, launch):
    """A request without outputs gives what was printed on standard output, and keeps no pod."""
    code = "import sys; print('answer'); sys.stderr.write('warning')"
    status, log, _ = launch(code, keeps=False, shape=Shape(nodes=2, processes=2))
    assert (status, log) == (0, "answer\n")
    assert launch.heard == []
    assert [one["kind"] for one in cluster.created] == ["Job", "Pod"]


def test_the_programs_status_and_what_it_wrote(cluster, launch):
    """A program that fails gives its status, its words and its outputs, too."""
    status, log, output = launch(WRITES + "sys.exit('no more')")
    assert (status, log) == (1, "hello\na warning\nno more\n")
    assert (output / "metrics.json").exists()


def test_a_worker_that_fails_ends_the_job_promptly(cluster, launch):
    """The other node is ended, and the failing one's status and last words are told."""
    began = time.monotonic()
    status, log, _ = launch(ONE_FAILS, shape=Shape(nodes=2))
    assert time.monotonic() - began < 20
    assert status == 1
    assert "rank 0 of 127.0.0.1" in log
    assert "rank 1 has had enough" in log
    assert any("node 1 ended with exit status 1" in line for line in launch.heard)
    assert {one["kind"] for one in cluster.created} == {"Service", "Job", "Pod"}


def test_nodes_that_work_longer_than_the_first(cluster, launch, monkeypatch):
    """They are waited for, it is said which, and the status of one that fails is the job's."""
    monkeypatch.setattr(following, "_LAST", 1)
    code = "import os, sys, time\nif int(os.environ['PET_NODE_RANK']): time.sleep(4); sys.exit(3)"
    status, _, _ = launch(code, shape=Shape(nodes=2))
    assert status == 3
    assert "node 0 has ended; waiting for node 1" in launch.heard


def test_connections_that_break_lose_nothing(cluster, launch):
    """An exec of kubectl's may end early and call it success: it is tried until all is here."""
    cluster.faults.truncate = 2
    _, _, output = launch(WRITES)
    assert (output / "deep" / "model.pt").read_bytes() == bytes(range(256)) * 4000


def test_connections_that_always_break(cluster, launch):
    """After three of them it is told, and the empty folder stays."""
    cluster.faults.truncate = 9
    with pytest.raises(EngineError, match="could not be brought here") as raised:
        launch(WRITES)
    assert "--output-claim" in raised.value.hint


def test_a_cluster_that_does_not_answer_for_a_while(cluster, launch):
    """A training is not given up for an API server that is replaced under it."""
    cluster.faults.outage = 12
    status, log, output = launch("import time; time.sleep(1)\n" + WRITES)
    assert (status, log) == (0, "hello\na warning\n")
    assert (output / "metrics.json").exists()
    assert any("unable to answer; trying again" in line for line in launch.heard)


def test_a_cluster_that_answers_no_more(cluster, launch, monkeypatch):
    """After minutes the job is given up, and deleted as soon as that can be."""
    monkeypatch.setattr(following, "_PATIENCE", 1)
    monkeypatch.setattr(deleting, "_PAUSES", (0, 0, 0))
    cluster.faults.outage = 22
    with pytest.raises(EngineError, match="unable to answer"):
        launch("import time; time.sleep(60)")
    for name in [one["metadata"]["name"] for one in cluster.all("jobs")]:
        assert any(f"--selector=dev.torchship.job={name}" in line for line in launch.heard)
        cluster.delete("jobs", name)


def test_outputs_that_were_not_fetched_in_time(cluster, launch, monkeypatch):
    """A pod that has not been kept long enough is an error: its outputs are lost."""
    monkeypatch.setattr(pod, "HOLD", 0)
    with pytest.raises(RunError, match="its outputs were not fetched") as raised:
        launch(WRITES)
    assert "--output-claim" in raised.value.hint


def test_an_image_that_sends_a_hostile_archive(cluster, launch, tmp_path, monkeypatch):
    """A python of the image's own may send anything: it does not leave the output's folder."""
    evil = tmp_path / "python3"
    tar = tmp_path / "evil.tar"
    subprocess.run(
        ["tar", "-cPf", tar, "--transform=s,.*,../../escaped,", "/etc/hostname"], check=True
    )
    evil.write_text(
        f'#!/bin/sh\n[ "$4" = /output ] || [ "${{4%output}}" != "$4" ] && exec cat {tar}\n'
        f'exec {sys.executable} "$@"\n'
    )
    evil.chmod(0o755)
    monkeypatch.setattr(cluster, "path", f"{tmp_path}:{cluster.path}")
    with pytest.raises(HostileInput, match="would leave its folder"):
        launch("pass")
    assert not list(tmp_path.rglob("escaped"))


def test_out_of_memory_is_told(cluster, launch):
    """A node that the kernel ended is told with what it had."""
    cluster.faults.out_of_memory = True
    with pytest.raises(RunError, match="node 1 was killed: out of memory, it needed more than its"):
        launch(
            "import os, time; rank = os.environ['PET_NODE_RANK']\n"
            "os.kill(os.getpid(), 9) if rank == '1' else time.sleep(60)",
            shape=Shape(nodes=2, memory=1 << 30),
        )


def test_the_time_limit_is_told(cluster, launch):
    """The job ends at its deadline."""
    with pytest.raises(RunError, match="ended at its time limit of 1 s"):
        launch("import time; print('x', flush=True); time.sleep(60)", shape=Shape(time_limit=1))


def test_an_image_that_cannot_be_pulled_is_told(cluster, launch):
    """What the kubelet says is told, with what to do; a second job is not even tried."""
    cluster.faults.waiting = ("ImagePullBackOff", 'Back-off pulling image "x": unauthorized')
    with pytest.raises(EngineError, match=r"cannot pull registry\.example") as raised:
        launch("pass")
    assert "--pull-secret" in raised.value.hint


def test_no_room_is_told_and_waited_for(cluster, launch):
    """Until the time limit a job waits for machines; why is told at once."""
    cluster.faults.unscheduled = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    with pytest.raises(EngineError, match="did not begin within its time limit of 2 s"):
        launch("pass", shape=Shape(time_limit=2, gpus=1))
    assert any("no room for the job yet" in line for line in launch.heard)


def test_pods_that_a_policy_forbids_are_told(cluster, launch):
    """A job whose pods are not allowed has none: the event says why."""
    cluster.faults.events = ['pods "x" is forbidden: violates PodSecurity "restricted": more']
    with pytest.raises(EngineError, match="does not allow the job's pods"):
        launch("pass")
    for name in [one["metadata"]["name"] for one in cluster.all("events")]:
        cluster.delete("events", name)


@pytest.mark.parametrize(
    ("forbidden", "told"),
    [
        ("create jobs", "ada to create jobs in the namespace research"),
        ("list pods", "ada to list pods"),
        ("get pods/log", "ada to get pods/log"),
        ("create pods/exec", "ada to create pods/exec"),
    ],
)
def test_missing_rights_are_told(cluster, launch, forbidden, told):
    """What the cluster does not allow is named, and nothing of the job is left."""
    cluster.faults.forbidden = {forbidden}
    with pytest.raises(EngineError, match=told):
        launch(WRITES)


def test_a_service_that_may_not_be_made(cluster, launch):
    """Where only part of a job could be created, that part goes again."""
    cluster.faults.forbidden = {"create services"}
    with pytest.raises(EngineError, match="ada to create services"):
        launch(ONE_FAILS, shape=Shape(nodes=2))


def test_a_namespace_that_is_not_there(cluster, launch):
    """It is told before anything runs."""
    with pytest.raises(EngineError, match="there is no namespace elsewhere"):
        launch("pass", namespace="elsewhere")


def test_a_context_that_is_not_there(cluster, launch):
    """The contexts are listed by kubectl: the hint says how."""
    with pytest.raises(EngineError, match=r"context .*elsewhere") as raised:
        launch("pass", context="elsewhere")
    assert "get-contexts" in raised.value.hint


def test_a_cluster_without_kubeflow(tmp_path, monkeypatch, launch):
    """A TrainJob needs Kubeflow Trainer, and that is said."""
    require("kubectl")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with (
        kubernetes.running(tmp_path, trainer=False),
        pytest.raises(EngineError, match="Kubeflow Trainer is not installed"),
    ):
        launch("pass", kind="trainjob")
    assert launch.heard == []


def test_no_cluster_answers(tmp_path, monkeypatch, launch):
    """A cluster that is down is told by its address."""
    require("kubectl")
    (tmp_path / "kubeconfig").write_text(kubernetes.kubeconfig("http://127.0.0.1:1"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(EngineError, match=r"no Kubernetes cluster answers.*127\.0\.0\.1:1"):
        launch("pass")


# -- from the command line

METRICS = '{"accuracy":{"name":"accuracy","pattern":"accuracy: ([0-9.]+)"}}'
TRAINS = """
import os, sys
print("accuracy: 0." + os.environ["SEED"], flush=True)
open(os.environ["TORCHSHIP_OUTPUT"] + "/model.pt", "wb").write(b"weights" * 1000)
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory, shared_registry) -> str:
    """Push an image that says how it is measured; what is in it, pods here do not look at."""
    store = Store(tmp_path_factory.mktemp("store"))
    data, diff_id = images.layer("a", 10)
    labels = {"dev.torchship.seed": "SEED={seed}", "dev.torchship.metrics": METRICS}
    config = {
        "architecture": Platform.host().architecture,
        "os": "linux",
        "config": {"Cmd": ["true"], "Labels": labels, "WorkingDir": "/", "User": "1000:1000"},
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": store.put(canonical.encode(config), mediatypes.OCI_CONFIG).as_json(),
        "layers": [store.put(data, mediatypes.OCI_GZIP).as_json()],
    }
    made = store.put(canonical.encode(manifest), mediatypes.OCI_MANIFEST)
    name = Reference.parse(f"{shared_registry.host}/me/pods:v1")
    push(store, made, name, progress=SILENT)
    return str(name)


@pytest.fixture
def torchship(cluster, reference, tmp_path):
    """Return what starts ``torchship launch`` in a folder of its own."""

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "torchship", "launch", reference, "--on=kubernetes", *arguments],
            cwd=tmp_path,
            env={**os.environ, "TORCHSHIP_HOME": str(tmp_path / "home")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_the_record_is_collected(torchship, cluster, tmp_path):
    """A launch makes the record that can be published: runs, outputs, machine, metrics."""
    with torchship("--seeds=3", "--memory=1G", "--", "python3", "-c", TRAINS) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    made = read(tmp_path / out.strip()).record
    assert [(run.seed, run.metrics["accuracy"]) for run in made.runs] == [(3, 0.3)]
    assert set(made.runs[0].outputs) == {"model.pt"}
    assert made.engine.startswith("kubernetes")
    assert made.hardware is not None
    jobs = [one for one in cluster.created if one["kind"] == "Job"]
    assert len(jobs) == 3  # two questions and the run
    assert err.count("created the job") == 1


def test_ctrl_c_leaves_no_job(torchship, cluster):
    """Whoever ends torchship ends the job, and every process of it."""
    program = "import time; print('under way', flush=True); time.sleep(100)"
    with torchship("--nodes=2", "--", "python3", "-c", program) as process:
        for line in process.stderr:
            if line == "under way\n":
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert cluster.left() == []
    assert all(each.process.poll() is not None for each in cluster.containers.values())


def test_a_dry_run_needs_no_cluster(torchship, monkeypatch, tmp_path):
    """The job is printed as kubectl takes it, and nothing is asked of anybody."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with torchship("--dry-run", "--nodes=2", "--pull-secret=s", "-e", "A=$(B)") as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    objects = list(yaml.safe_load_all(out))
    assert [one["kind"] for one in objects] == ["Service", "Job"]
    for one in objects:
        kubernetes_validate.validate(one, kubernetes.VERSION, strict=True)


def test_without_kubectl(torchship, monkeypatch, tmp_path):
    """A machine without kubectl is told what is missing, and nothing else."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with torchship() as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert "torchship: kubectl is not installed\n" in err
    assert "may still be there" not in err
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("arguments", "told", "status"),
    [
        (("--partition=x",), "--partition is for Slurm alone", 2),
        (("--namespace=A B",), "no name in Kubernetes", 2),
        (("--port=70000",), "70000 is not in the range", 2),
        (("--namespace=elsewhere",), "there is no namespace elsewhere", 1),
    ],
)
def test_what_is_wrong_is_one_line(torchship, arguments, told, status):
    """What cannot be is told before anything runs."""
    with torchship(*arguments) as process:
        _, err = process.communicate(timeout=30)
    assert (process.returncode, told in err) == (status, True), err
    assert "Traceback" not in err
