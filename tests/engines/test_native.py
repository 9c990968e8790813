"""The native engine, from a store and a request to an exit status."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from torchship.digest import chunks
from torchship.engines.native import Native
from torchship.engines.request import Mount, Request
from torchship.errors import EngineError, LayerError
from torchship.oci.prune import prune
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.runs.execution import execute

from .conftest import linux

pytestmark = linux


@pytest.fixture
def run(store, image, tmp_path):
    """Run a request; return its status, and what went to standard output and to the log."""

    def start(*command, image=image, **settings):
        log, out = tmp_path / "stdout.log", tmp_path / "out"
        with out.open("wb") as sink:
            request = Request(
                image=image,
                command=command,
                log=log,
                stdout=sink.fileno(),
                stderr=sink.fileno(),
                **settings,
            )
            status = Native(store).run(request)
        return status, out.read_text(), log.read_text()

    return start


def test_the_images_own_command_runs(run):
    """Without a command in the request; every byte goes to the log as well."""
    assert run() == (3, "the image\n", "the image\n")


def test_a_command_replaces_the_images(run):
    """And both standard streams are in the log."""
    status, out, log = run("bash", "-c", "echo out; echo err >&2")
    assert (status, sorted(out.split()), sorted(log.split())) == (0, ["err", "out"], ["err", "out"])


def test_an_entrypoint_comes_before_the_command(run, image):
    """As every engine has it."""
    with_entrypoint = replace(image, entrypoint=("echo", "entry"), command=("default",))
    assert run(image=with_entrypoint)[1] == "entry default\n"
    assert run("given", image=with_entrypoint)[1] == "entry given\n"


def test_the_environment_is_the_images_and_the_requests(run, monkeypatch):
    """Nothing of the caller's; HOME is the user's, HOSTNAME the image's digest."""
    monkeypatch.setenv("SECRET", "hunter2")
    _, out, _ = run("env", environment={"GIVEN": "a=b c"})
    found = dict(line.split("=", 1) for line in out.splitlines())
    assert found.pop("HOSTNAME") and found == {
        "PATH": "/usr/bin",
        "FROM_IMAGE": "1",
        "GIVEN": "a=b c",
        "HOME": "/home/user",
    }


@pytest.mark.parametrize(
    ("user", "expected"),
    [("user", "1000 1000"), ("", "0 0"), ("root", "0 0"), ("7:8", "7 8"), ("1000", "1000 1000")],
)
def test_the_user_is_the_images(run, image, user, expected):
    """By name, by number, or root where the image says nothing."""
    _, out, _ = run("bash", "-c", "echo $(id -u) $(id -g)", image=replace(image, user=user))
    assert out.strip() == expected


def test_output_and_mounts_are_where_they_were_asked_for(run, tmp_path):
    """The output directory is writable at /output, and its files belong to the caller."""
    output, data = tmp_path / "output", tmp_path / "data"
    output.mkdir()
    data.mkdir()
    (data / "x").write_text("data")
    status, out, _ = run(
        "bash",
        "-c",
        "pwd; cat /data/x; echo > /output/result; ! touch /data/y",
        output=output,
        mounts=(Mount(source=data, target="/data", read_only=True),),
    )
    assert (status, out.startswith("/workspace\ndata")) == (0, True)
    assert (output / "result").stat().st_uid == os.getuid()


def test_the_number_of_processors_can_be_limited(run):
    """The program sees as many as it may use, so that torch starts as many threads."""
    _, out, _ = run(
        "python3", "-ISc", "import os; print(len(os.sched_getaffinity(0)))", processors=0.5
    )
    assert out == "1\n"


def test_prune_leaves_what_is_being_run(root_layer, image, tmp_path):
    """An image that is ready to run stays so, though nobody else needs it, and prune waits not."""
    path, layer = root_layer
    store = Store.open(tmp_path / "store")
    with path.open("rb") as blob, store.writer() as writer:
        for piece in chunks(blob):
            writer.write(piece)
        writer.commit(layer.digest)
    engine = Native(store)
    engine.prepare(image)
    store.release()
    other = Store.open(store.home)
    pruned = prune(other, wait=0)
    assert (pruned.blobs, pruned.unpacked) == (1, 0)
    other.release()
    with (tmp_path / "out").open("wb") as out:
        assert engine.run(Request(image=image, stdout=out.fileno())) == 3
    assert (tmp_path / "out").read_text() == "the image\n"
    while any(thread.name == "settle" for thread in threading.enumerate()):
        time.sleep(0.01)
    del engine
    store.release()
    assert prune(other, wait=0).unpacked == 1


def test_a_memory_limit_holds_or_is_an_error(run):
    """A program that takes more is killed; where none can be set, the run does not start."""
    program = ("python3", "-ISc", "x = bytearray(300 << 20); print('lived')")
    try:
        status, out, _ = run(*program, memory=100 << 20)
    except EngineError as error:
        assert "memory" in error.message and error.hint
    else:
        assert (status, out) == (137, "")


def test_an_image_for_another_platform_is_refused(run, image):
    """With both platforms named."""
    other = "arm64" if Platform.host().architecture == "amd64" else "amd64"
    with pytest.raises(EngineError, match=other):
        run(image=replace(image, platform=Platform("linux", other)))


def test_a_missing_program_is_named(run):
    """The error says which program the image does not have."""
    with pytest.raises(EngineError, match="nope"):
        run("nope")


def test_an_unknown_user_is_an_error(run, image):
    """A name that no passwd file of the image has."""
    with pytest.raises(EngineError, match="somebody"):
        run(image=replace(image, user="somebody"))


def test_a_passwd_that_is_a_symlink_reads_nothing_of_the_host(run, image, store, tmp_path):
    """A hostile layer cannot have the host's own accounts looked up."""
    from torchship.layers.archive import Entry, Kind

    from .conftest import write_layer

    layer = write_layer(
        tmp_path / "evil",
        lambda archive: archive.add(
            Entry(path="etc/passwd", kind=Kind.SYMLINK, target="/etc/passwd")
        ),
    )
    with store.writer() as writer:
        writer.write((tmp_path / "evil").read_bytes())
        writer.commit(layer.digest)
    evil = replace(image, layers=(*image.layers, layer), user="daemon")
    with pytest.raises(EngineError, match="daemon"):
        run(image=evil)


def test_a_layer_with_another_diff_id_does_not_run(image, tmp_path, root_layer):
    """What an image's config says of a layer is checked before anything of it is used."""
    from torchship.digest import Digest

    path, layer = root_layer
    store = Store.open(tmp_path / "store")
    with store.writer() as writer:
        writer.write(path.read_bytes())
        writer.commit(layer.digest)
    lying = replace(layer, diff_id=Digest.of(b"another"))
    with pytest.raises(LayerError):
        Native(store).run(Request(image=replace(image, layers=(lying,))))


def test_torch_like_programs_find_their_processors(run):
    """The parts of /sys that say how many there are, and nothing else of it."""
    program = "import os, json; print(json.dumps([os.listdir('/sys'), os.cpu_count()]))"
    listed, count = json.loads(run("python3", "-ISc", program)[1])
    assert (listed, count) == (["devices"], os.cpu_count())
    assert (
        run("cat", "/sys/devices/system/cpu/online")[1]
        == Path("/sys/devices/system/cpu/online").read_text()
    )


def test_it_is_not_missing_here(store):
    """The probe agrees with what the other tests did."""
    assert Native(store).missing() is None


FORBID = """
import sys, json
from torchship.engines import syscalls
if {root}:
    # User namespaces are forbidden to everything below a namespace of our own
    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    with open("/proc/sys/user/max_user_namespaces", "w") as stream:
        stream.write("0")
from torchship.engines.namespaces import obstacle
found = obstacle()
print(json.dumps([found.reason, found.hint]))
"""


def test_a_machine_without_user_namespaces_is_told_which_setting_and_which_engine():
    """The setting is named, the command that changes it, and an engine that needs none."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", FORBID.format(root=True)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    reason, hint = json.loads(done.stdout)
    assert "user.max_user_namespaces" in reason
    assert "sysctl" in hint and "docker load" in hint


def test_a_layer_may_stand_twice_in_an_image(run, image):
    """Images built on images repeat layers, which overlayfs by itself refuses."""
    repeated = replace(image, layers=(*image.layers, *image.layers))
    assert run("echo", "there", image=repeated)[:2] == (0, "there\n")


class Heard:
    """Remembers what was told."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        """Take a line."""
        self.lines.append(line)


def test_what_was_written_where_nothing_is_kept_is_told(store, image, tmp_path):
    """A model saved beside the program is gone with the container: that is said at once."""
    heard = Heard()
    (tmp_path / "output").mkdir()
    (tmp_path / "a.csv").touch()
    engine = Native(store, progress=heard)

    def run(script):
        engine.run(
            Request(
                image=image,
                command=("bash", "-c", script),
                output=tmp_path / "output",
                mounts=(Mount(source=tmp_path / "a.csv", target="/workspace/a.csv"),),
            )
        )

    run("echo kept > /output/kept; echo > /tmp/a; mkdir -p .cache; echo > .cache/a")
    assert heard.lines == []
    run("mkdir deep; for i in 1 2 3 4 5 6; do echo > deep/$i; done; echo kept > /output/kept")
    assert heard.lines == [
        "6 files written outside /output were not kept: deep/1, deep/2, deep/3, deep/4, deep/5, ..."
        " (TORCHSHIP_OUTPUT names /output)"
    ]


def test_a_run_leaves_no_setuid_file(store, image, tmp_path):
    """The program is the caller outside: whoever started such a file of its would be, too."""
    output, log = tmp_path / "run" / "output", tmp_path / "run" / "log"
    output.mkdir(parents=True)
    output.parent.chmod(0o755)
    script = "echo a > /output/a; chmod 6755 /output/a; stat -c %a /output/a"
    request = Request(image=image, command=("bash", "-c", script), output=output, log=log)
    done = execute(request, Native(store), metrics_of=(), output=output, log=log, seed=None)
    assert (done.run.status, log.read_text()) == (0, "6755\n")
    assert (output / "a").stat().st_mode & 0o7777 == 0o755
    assert output.parent.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("way", ["symlink", "dots"])
def test_a_working_directory_leads_to_no_file_of_the_host(store, image, tmp_path, way):
    """Neither a program that makes a link of the way to it, nor an image, has the host's told."""
    heard = Heard()
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "diary").touch()
    workdir = f"/way/{secret.name}" if way == "symlink" else f"/{'../' * 30}{secret}"
    script = f"cd /; rm -r /way; ln -s {tmp_path} /way" if way == "symlink" else "true"
    Native(store, progress=heard).run(
        Request(image=replace(image, workdir=workdir), command=("bash", "-c", script))
    )
    assert heard.lines == []


@pytest.mark.parametrize("words", [("",), ("", "x"), ("echo", "a\0b")])
def test_a_command_that_no_system_could_start_is_an_error(run, image, words):
    """Typed, or in a stranger's image."""
    with pytest.raises(EngineError, match="empty"):
        run(*words)
    with pytest.raises(EngineError, match="empty"):
        run(image=replace(image, command=words))
