"""The podman engine, on a real Podman: as root, and as an ordinary user where one may."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.integration.containers import conversation, make, public_folder, runner
from tests.integration.registry import require

from torchship.engines.gpu import Gpus
from torchship.engines.podman import Podman
from torchship.engines.request import Mount, Request
from torchship.errors import EngineError
from torchship.oci.store import Store
from torchship.runs.execution import execute

pytestmark = pytest.mark.engine

NAME = "localhost/me/tiny:v1"


@pytest.fixture(scope="module")
def podman():
    """Give Podman storage and settings of the tests' own; returns a function that asks it."""
    require("podman")
    with pytest.MonkeyPatch.context() as patch, public_folder() as folder:
        settings = ["[containers]"]
        # Podman asks for more open files and processes than a machine inside a container has
        settings += ['default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]', "[engine]"]
        settings += ['cgroup_manager = "cgroupfs"', 'events_logger = "file"']
        # crun refuses machines with both versions of cgroups, as those inside containers may be
        settings += ['runtime = "runc"'] if shutil.which("runc") else []
        (folder / "containers.conf").write_text("\n".join(settings))
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
        )
        patch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
        patch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
        patch.setenv("XDG_RUNTIME_DIR", str(folder))

        def ask(*words) -> str:
            return subprocess.run(
                ["podman", *words], capture_output=True, text=True, check=True
            ).stdout

        if Podman(Store.open(folder / "none")).missing() is not None and os.geteuid() != 0:
            pytest.skip("rootless podman needs subordinate ids on this machine")
        yield ask
        ask("rm", "--all", "--force")
        if os.geteuid() != 0:  # its files are those of subordinate users
            subprocess.run(["podman", "unshare", "rm", "-rf", f"{folder}/root"], check=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Give a store, in a folder with a colon in its name."""
    store = Store.open(tmp_path_factory.mktemp("a:store"))
    yield store
    store.release()


@pytest.fixture(scope="module")
def image(store):
    """Give an image with the usual user."""
    return make(store, NAME, "one", "two")


@pytest.fixture
def run(podman, store, image, tmp_path):
    """Run a shell command; return status, standard output and standard error."""
    (tmp_path / "output").mkdir()

    def start(script, **settings):
        out, err = tmp_path / "out", tmp_path / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            status = Podman(store).run(
                Request(
                    **{
                        "image": image,
                        "command": ("sh", "-c", script),
                        "output": tmp_path / "output",
                        "stdout": stdout.fileno(),
                        "stderr": stderr.fileno(),
                        **settings,
                    }
                )
            )
        return status, out.read_text(), err.read_text()

    return start


def test_a_program_runs_and_its_output_is_the_callers(run, podman, tmp_path):
    """Status, streams, log, environment, directory: as asked; nothing is left in Podman."""
    status, out, err = run(
        'echo "$PWD $A $FROM_IMAGE"; echo bad >&2; echo x > /output/file; echo > here; '
        "mkdir -m 700 /output/private; echo y > /output/private/y; exit 7",
        environment={"A": "1\n2"},
        log=tmp_path / "log",
    )
    assert (status, out, err) == (7, "/workspace 1\n2 1\n", "bad\n")
    for path in (tmp_path / "output").rglob("*"):
        assert path.stat().st_uid == os.geteuid()
    assert (tmp_path / "output" / "private" / "y").read_text() == "y\n"
    assert "bad" in (tmp_path / "log").read_text()
    assert podman("ps", "--all", "--quiet") == ""
    assert podman("images", "--format", "{{.Repository}}:{{.Tag}}").split() == [NAME]


def test_a_temporary_folder_of_any_name(podman, store, tmp_path, monkeypatch):
    """Podman makes a name of the path that it reads from: capitals and a last `_` may be in it."""
    folder = tmp_path / "Of Mine_"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    Podman(store).prepare(make(store, "localhost/me/other:v1", "elsewhere"))
    assert "localhost/me/other:v1" in podman("images", "--format", "{{.Repository}}:{{.Tag}}")
    podman("rmi", "localhost/me/other:v1")
    store.remove("localhost/me/other:v1")


def test_the_images_own_command_and_isolation(run, tmp_path):
    """Without a command the image's is run; no network, no capabilities but root's own."""
    status, out, _ = run("", command=())
    assert (status, out) == (3, "the image\n")
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    _, out, err = run(
        "cat /proc/net/dev /proc/self/status; echo > /data/new",
        mounts=(Mount(source=open_to_all, target="/data", read_only=True),),
    )
    assert "eth0" not in out and "NoNewPrivs:\t1" in out and "Read-only" in err
    kept = {0: "0000000000000000"}.get(os.geteuid(), "000000000000000b")
    assert f"CapEff:\t{kept}" in out


def test_a_runtime_that_runs_nothing_here(podman, store, monkeypatch, tmp_path):
    """Podman with crun is passed over where there are both versions of control groups."""
    second = Path("/sys/fs/cgroup/unified/cgroup.controllers")
    if not second.is_file() or not second.read_text().strip():
        pytest.skip("this machine has one version of control groups")
    assert Podman(store).missing() is None
    (tmp_path / "containers.conf").write_text('[engine]\nruntime = "crun"\n')
    monkeypatch.setenv("CONTAINERS_CONF", str(tmp_path / "containers.conf"))
    assert "crun, runs nothing" in (Podman(store).missing() or "")


def test_a_program_that_is_not_there(run):
    """It is told apart from a program that ends with the same number."""
    with pytest.raises(EngineError, match="could not start") as caught:
        run("", command=("nope",))
    assert "check the command" in caught.value.hint
    for status in (125, 126, 127):
        assert run(f"exit {status}")[0] == status


def test_an_edited_image_brings_only_what_is_new(podman, store, image, run):
    """Layers that Podman has are not read again, and the old image does not stay behind."""
    run("true")
    edited = make(store, NAME, "one", "an edit")
    hidden = store.blobs.path(image.layers[0].digest)
    aside = hidden.with_name("aside")
    hidden.rename(aside)
    try:
        Podman(store).prepare(edited)
    finally:
        aside.rename(hidden)
    listed = ("podman", "images", "--all", "--quiet", "--no-trunc")
    deadline = time.monotonic() + 30
    left = []
    while left != [str(edited.config.digest)] and time.monotonic() < deadline:
        # The old image is removed meanwhile, and Podman fails to list an image half removed
        answer = subprocess.run(listed, capture_output=True, text=True, check=False)
        left = answer.stdout.split() if answer.returncode == 0 else [answer.stderr]
        time.sleep(0.1)
    assert left == [str(edited.config.digest)]
    assert run("cat /srv/text1", image=edited)[1] == "an edit"
    make(store, NAME, "one", "two")


def test_a_run_leaves_no_setuid_file(podman, store, image, tmp_path):
    """It is written into a directory that is closed to others, and harmless afterwards."""
    output, log = tmp_path / "run" / "output", tmp_path / "run" / "log"
    output.mkdir(parents=True)
    output.parent.chmod(0o755)
    script = "echo a > /output/a && chmod 6755 /output/a && stat -c %a /output/a > /output/b"
    request = Request(image=image, command=("sh", "-c", script), output=output, log=log)
    done = execute(request, Podman(store), metrics_of=(), output=output, log=log, seed=None)
    assert done.run.status == 0
    assert (output / "b").read_text() == "6755\n"
    assert (output / "a").stat().st_mode & 0o7777 == 0o755
    assert output.parent.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("also", [(), ("huge passwd",)])
def test_an_images_volumes_are_gone_after_a_run(podman, store, run, also):
    """Those of the run itself, and of the container that is made to look its user up."""
    name = f"localhost/me/volumes{len(also)}:v1"
    image = make(store, name, user="user", also=also, volumes=("/data", "/cache"))
    before = podman("volume", "ls", "--quiet")
    if also:
        with pytest.raises(EngineError, match="/etc/passwd does not have"):
            run("true", image=image)
    else:
        assert run("test -d /data && echo x > /output/x", image=image)[0] == 0
    assert podman("volume", "ls", "--quiet") == before
    store.remove(name)


def test_standard_input_and_a_terminal(podman, store, image):
    """What is piped arrives whole; on a terminal keys arrive, Ctrl-C and Ctrl-P among them."""
    command = runner("podman", store, NAME, "cat; exit 4", "-i")
    done = subprocess.run(command, input=b"x" * 300_000, capture_output=True, check=False)
    assert (done.returncode, len(done.stdout)) == (4, 300_000), done.stderr
    sized = "until stty size | grep -v '^0'; do sleep 0.1; done"
    script = f"trap 'echo interrupted; exit 5' INT; {sized}; read a; echo got $a; read b"
    turns = [(b"31 91", b"word\x10\x10\r"), (b"got", b"\x03")]
    status, shown = conversation(runner("podman", store, NAME, script, "-i", "-t"), turns)
    assert b"got word\x10\x10\r\n" in shown
    assert status == 5 and b"interrupted\r\n" in shown


def test_signals_and_sudden_ends(podman, store, image):
    """SIGTERM reaches the program; killed with -9, torchship leaves no container."""
    script = "trap 'echo saved; exit 9' TERM; echo up; while :; do sleep 0.1; done"
    process = subprocess.Popen(runner("podman", store, NAME, script), stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == (b"saved\n", None)
    assert process.returncode == 9
    process = subprocess.Popen(runner("podman", store, NAME, script), stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"up\n"
    time.sleep(1)  # Podman passes signals on once it knows itself that the container runs
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while podman("ps", "--all", "--quiet") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert podman("ps", "--all", "--quiet") == ""


def test_missing(podman, store, monkeypatch):
    """A Podman elsewhere, and none at all, are told as such."""
    assert Podman(store).missing() is None
    monkeypatch.setenv("CONTAINER_HOST", "ssh://me@elsewhere")
    assert "another machine" in Podman(store).missing()
    monkeypatch.setenv("PATH", "/nowhere")
    assert Podman(store).missing() == "podman is not installed"


@pytest.fixture
def gpu(monkeypatch):
    """Give the machine a CDI specification of two GPUs, where it has none of its own."""
    folder = Path("/etc/cdi")
    if folder.exists() or os.geteuid() != 0:
        pytest.skip("Podman reads /etc/cdi, which is the machine's own here")
    monkeypatch.delenv("TORCHSHIP_CDI_DIRS", raising=False)
    devices = [
        {"name": name, "containerEdits": {"deviceNodes": [{"path": to, "hostPath": node}]}}
        for name, to, node in (
            ("0", "/dev/nvidia0", "/dev/zero"),
            ("1", "/dev/nvidia1", "/dev/full"),
        )
    ]
    common = {"env": ["NVIDIA_VISIBLE_DEVICES=void"]}
    document = {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": devices,
        "containerEdits": common,
    }
    folder.mkdir()
    try:
        (folder / "nvidia.json").write_text(json.dumps(document))
        yield
    finally:
        shutil.rmtree(folder)


def test_gpus_are_passed_on_by_cdi(gpu, run):
    """All of them, the first, or the one that was named; and none by itself."""
    look = "ls /dev/nvidia0 /dev/nvidia1 2>/dev/null; echo $NVIDIA_VISIBLE_DEVICES"
    assert run(look, gpus=Gpus.parse("all"))[1] == "/dev/nvidia0\n/dev/nvidia1\nvoid\n"
    assert run(look, gpus=Gpus.parse("1"))[1] == "/dev/nvidia0\nvoid\n"
    assert run(look, gpus=Gpus.parse("device=1"))[1] == "/dev/nvidia1\nvoid\n"
    assert run(look)[1] == "\n"
