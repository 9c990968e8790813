"""The docker engine, on a real daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.integration.containers import UID, as_user, conversation, make, public_folder, runner

from torchship.engines import commandline, docker, helper, loading  # noqa: F401 (imported as root)
from torchship.engines.docker import Docker
from torchship.engines.request import Mount, Request
from torchship.errors import EngineError
from torchship.oci.store import Store
from torchship.runs.execution import execute

pytestmark = pytest.mark.engine

NAME = "localhost/me/tiny:v1"
OTHER_USER = 1234


class Told:
    """A progress that remembers what it was told, and how many bytes its tasks were of."""

    def __init__(self, stream=None):
        self.stream = stream
        self.lines: list[str] = []
        self.sizes: list[int] = []

    def task(self, label, total=None):
        """Remember the size."""
        self.sizes.append(total or 0)
        return self

    def advance(self, amount):
        """Take note of nothing."""

    def finish(self):
        """Take note of nothing."""

    def say(self, line):
        """Remember the line, and pass it on."""
        self.lines.append(line)
        if self.stream is not None:
            print(line, file=self.stream, flush=True)


@pytest.fixture(scope="module")
def folder():
    """Give a folder that every user may enter."""
    with public_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def store(folder):
    """Give a store."""
    store = Store.open(folder / "store")
    yield store
    store.release()


@pytest.fixture(scope="module")
def image(store):
    """Give an image with the usual user."""
    return make(store, NAME, "one", "two")


@pytest.fixture
def daemon(dockerd, monkeypatch):
    """Let torchship find the tests' daemon, and everybody use it."""
    for name in ("DOCKER_HOST", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, dockerd.environment[name])
    dockerd.socket.parent.chmod(0o711)
    dockerd.socket.chmod(0o666)
    return dockerd


@pytest.fixture
def place(folder, request):
    """Give an output directory of the test's own."""
    path = folder / request.node.name.replace("[", "-").replace("]", "") / "output"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def run(daemon, store, image, place, tmp_path):
    """Run a shell command; return status, standard output and standard error."""

    def start(script, **settings):
        out, err = tmp_path / "out", tmp_path / "err"
        progress = settings.pop("progress", Told())
        with out.open("wb") as stdout, err.open("wb") as stderr:
            status = Docker(store, progress=progress).run(
                Request(
                    **{
                        "image": image,
                        "command": ("sh", "-c", script),
                        "output": place,
                        "stdout": stdout.fileno(),
                        "stderr": stderr.fileno(),
                        **settings,
                    }
                )
            )
        return status, out.read_text(), err.read_text()

    return start


def test_a_program_runs_and_its_output_is_the_callers(run, place, daemon):
    """Status, streams, log, environment, directory: as asked; nothing is left in Docker."""
    log = place.parent / "log"
    status, out, err = run(
        'echo "$PWD $A $FROM_IMAGE $(id -u)"; echo bad >&2; echo x > /output/file; '
        "mkdir -m 700 /output/private; echo y > /output/private/y; exit 7",
        environment={"A": "1 2"},
        log=log,
    )
    assert (status, out, err) == (7, "/workspace 1 2 1 1000\n", "bad\n")
    assert sorted(log.read_text().splitlines()) == ["/workspace 1 2 1 1000", "bad"]
    for path in (place, *place.rglob("*")):
        assert path.stat().st_uid == os.geteuid()
    assert (place / "private" / "y").read_text() == "y\n"
    assert os.listxattr(place) == [] and place.stat().st_mode & 0o777 == 0o755
    assert daemon.docker("ps", "--all", "--quiet") == ""


def test_the_images_own_command(run):
    """Without a command the image's is run."""
    status, out, _ = run("", command=())
    assert (status, out) == (3, "the image\n")


def test_limits_and_isolation(run):
    """No network but its own, no capabilities, no new privileges, half the memory shared."""
    _, out, _ = run("cat /proc/net/dev; cat /proc/self/status; stat -f -c %b*%S /dev/shm")
    interfaces = [line.split(":")[0].strip() for line in out.splitlines()[2:4] if ":" in line]
    assert interfaces[:1] == ["lo"] and "eth0" not in out
    assert "CapEff:\t0000000000000000" in out and "CapBnd:\t0000000000000000" in out
    assert "NoNewPrivs:\t1" in out
    blocks, size = out.splitlines()[-1].split("*")
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    assert int(blocks) * int(size) == pytest.approx(half, rel=0.01)


def test_values_are_seen_by_the_program_and_by_no_list_of_processes(run):
    """A secret, a value of several lines, odd characters: all arrive, none is in an argv."""
    seen = []

    def look():
        deadline = time.monotonic() + 20
        while not seen and time.monotonic() < deadline:
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    words = entry.read_bytes()
                except OSError:
                    continue
                if b"--label=dev.torchship.run" in words:
                    seen.append(words)

    watcher = threading.Thread(target=look)
    watcher.start()
    values = {"SECRET": "hunter2 'x' $y", "LINES": "first\nlast", "EMPTY": "", "HASH": "#x "}
    _, out, _ = run('printf "%s|%s|%s|%s" "$SECRET" "$LINES" "$EMPTY" "$HASH"', environment=values)
    watcher.join()
    assert out == "hunter2 'x' $y|first\nlast||#x "
    assert b"hunter2" not in seen[0] and b"first" not in seen[0]


def test_a_value_that_the_client_would_read_is_refused(run):
    """A PATH of two lines cannot go through docker's own environment."""
    with pytest.raises(EngineError, match="several lines"):
        run("true", environment={"PATH": "/usr/bin\n/bin"})


def test_mounts(run, folder):
    """A folder with a comma in its name is seen, read-only where it was asked for."""
    source = folder / "with, comma"
    source.mkdir()
    (source / "file").write_text("mounted")
    mount = Mount(source=source, target="/data", read_only=True)
    _, out, err = run("cat /data/file; echo > /data/new", mounts=(mount,))
    assert out == "mounted" and "Read-only" in err


def test_a_program_that_is_not_there(run):
    """It is told apart from a program that ends with the same number."""
    with pytest.raises(EngineError, match="could not start") as caught:
        run("", command=("nope",))
    assert "check the command" in caught.value.hint
    for status in (125, 126, 127):
        assert run(f"exit {status}")[0] == status


def test_a_mount_that_vanished(run, folder, daemon):
    """Docker's own complaint is told, and no container is left."""
    with pytest.raises(EngineError, match="does not exist"):
        run("true", mounts=(Mount(source=folder / "gone", target="/data"),))
    assert daemon.docker("ps", "--all", "--quiet") == ""


def test_too_little_memory_is_told(run):
    """The kernel's kill is 137, with a line that says why."""
    told = Told()
    status, _, _ = run(
        "x=$(</dev/zero tr); a=x; while :; do a=$a$a; done", progress=told, memory=32 << 20
    )
    assert status == 137
    assert told.lines == ["the program was killed: it needed more memory than the --memory it had"]


def test_standard_input(daemon, store, image):
    """A pipe's end arrives as such, and what was piped arrives whole."""
    command = runner("docker", store, NAME, "cat; exit 4", "-i")
    done = subprocess.run(command, input=b"x" * 300_000, capture_output=True, check=False)
    assert (done.returncode, len(done.stdout)) == (4, 300_000), done.stderr


def test_a_terminal(daemon, store, image):
    """The program has one of the caller's size; keys arrive, Ctrl-C and Ctrl-P among them."""
    # Docker 20.10 tells a program its terminal's size a moment after it has started
    sized = "until stty size | grep -v '^0'; do sleep 0.1; done"
    script = (
        f"trap 'echo interrupted; exit 5' INT; {sized}; read a; echo got $a; echo bad >&2; read"
    )
    turns = [(b"31 91", b"word\x10\x10\r"), (b"bad", b"\x03")]
    status, shown = conversation(runner("docker", store, NAME, script, "-i", "-t"), turns)
    assert b"got word\x10\x10\r\nbad\r\n" in shown
    assert status == 5 and b"interrupted\r\n" in shown


def starting(daemon, store, script):
    """Start torchship's engine in a process that can be sent signals."""
    return subprocess.Popen(runner("docker", store, NAME, script), stdout=subprocess.PIPE)


def none_left(daemon, seconds=15.0):
    """Wait for the last container to go."""
    deadline = time.monotonic() + seconds
    while daemon.docker("ps", "--all", "--quiet") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert daemon.docker("ps", "--all", "--quiet") == ""


# `wait` would do, but a signal that comes as bash begins to wait is heard at the wait's end
AWAKE = "while :; do sleep 0.1; done"


def test_signals_are_passed_on(daemon, store, image):
    """Ctrl-C and SIGTERM reach the program, which may save its work; its status counts."""
    for number in (signal.SIGINT, signal.SIGTERM):
        name = number.name.removeprefix("SIG")
        process = starting(daemon, store, f"trap 'echo saved; exit 9' {name}; echo up; {AWAKE}")
        assert process.stdout.readline() == b"up\n"
        process.send_signal(number)
        assert process.communicate(timeout=30) == (b"saved\n", None)
        assert process.returncode == 9


def test_a_signal_before_the_container_runs_is_not_lost(daemon, store, image):
    """It is kept until the program is there."""
    process = starting(daemon, store, "sleep 60")
    time.sleep(0.45)
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    assert process.returncode in (143, -signal.SIGTERM)
    none_left(daemon)


def test_a_second_interrupt_kills(daemon, store, image):
    """A program that hears no Ctrl-C is ended by the second."""
    process = starting(daemon, store, "trap '' INT; echo up; sleep 60 & wait; wait; sleep 60")
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 137
    none_left(daemon)


def test_nothing_outlives_torchship(daemon, store, image):
    """Killed with -9, it leaves no container: the program is asked to end."""
    process = starting(daemon, store, "echo up; sleep 60")
    assert process.stdout.readline() == b"up\n"
    process.kill()
    process.communicate()
    none_left(daemon)


def held(daemon) -> set[str]:
    """Return the images that Docker holds, those without a name too."""
    return set(daemon.docker("image", "ls", "--all", "--quiet", "--no-trunc").split())


def test_an_edited_image_brings_only_what_is_new(daemon, store, image, run):
    """The second load sends no layer that Docker has, and the old image does not stay behind."""
    run("true")
    before = held(daemon)
    told = Told()
    edited = make(store, NAME, "one", "an edit")
    Docker(store).prepare(edited, progress=told)
    assert sum(told.sizes) < 10_000
    wanted = {*before, str(edited.config.digest)} - {str(image.config.digest)}
    deadline = time.monotonic() + 30
    while held(daemon) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    assert held(daemon) == wanted
    assert run("cat /srv/text1", image=edited)[1] == "an edit"
    told = Told()
    Docker(store).prepare(edited, progress=told)
    assert told.sizes == []
    make(store, NAME, "one", "two")


def test_a_layer_that_went_meanwhile_is_sent_after_all(daemon, store, image, monkeypatch, run):
    """Where Docker lacks what it seemed to have, everything is loaded."""
    other = make(store, "localhost/me/other:v1", "never seen")
    everything = frozenset(layer.digest for layer in other.layers)
    monkeypatch.setattr(Docker, "_present", lambda *_: everything)
    assert run("cat /srv/text0", image=other)[1] == "never seen"


def test_a_name_of_somebody_elses_image_stays(daemon, store, image, run):
    """A foreign image that has the same name in Docker keeps it; ours runs all the same."""
    daemon.docker("import", "-", "localhost/me/theirs:v1", stdin=subprocess.DEVNULL)
    theirs = daemon.docker("image", "ls", "-q", "--no-trunc", "localhost/me/theirs:v1")
    ours = make(store, "localhost/me/theirs:v1", "ours")
    assert run("cat /srv/text0", image=ours)[1] == "ours"
    assert daemon.docker("image", "ls", "-q", "--no-trunc", "localhost/me/theirs:v1") == theirs


@pytest.mark.parametrize("also", [(), ("huge passwd",)])
def test_an_images_volumes_are_gone_after_a_run(daemon, store, run, also):
    """Those of the run itself, and of the container that is made to look its user up."""
    name = f"localhost/me/volumes{len(also)}:v1"
    image = make(store, name, user="user", also=also, volumes=("/data", "/cache"))
    before = daemon.docker("volume", "ls", "--quiet")
    if also:
        with pytest.raises(EngineError, match="/etc/passwd does not have"):
            run("true", image=image)
    else:
        assert run("test -d /data && echo x > /output/x", image=image)[0] == 0
    assert daemon.docker("volume", "ls", "--quiet") == before
    store.remove(name)


@pytest.mark.parametrize("caller", [0, UID, OTHER_USER])
@pytest.mark.parametrize("user", ["1000:1000", "", "user"])
def test_outputs_belong_to_the_caller(daemon, store, folder, place, caller, user, tmp_path):
    """Whoever calls, and whoever the image runs as: it writes, and the caller owns it all."""
    image = make(store, f"localhost/me/user{user.partition(':')[0]}:v1", "u", user=user)
    Docker(store).prepare(image)
    held = image.config.digest
    os.chown(place, caller, caller)
    script = (
        "echo a > /output/a && mkdir -m 700 /output/private && echo b > /output/private/b && "
        "ln -s /etc/passwd /output/link && echo c > /workspace/c && echo ran > /output/done"
    )

    def call() -> int:
        engine = Docker(store, progress=Told(sys.stderr))
        engine._prepared[str(image.descriptor.digest)] = str(held)  # the store is root's here
        return engine.run(Request(image=image, command=("sh", "-c", script), output=place))

    passwd = Path("/etc/passwd").stat()
    assert as_user(caller, call) == 0
    assert (place / "done").read_text() == "ran\n"
    for path in (place, *place.rglob("*")):
        assert path.lstat().st_uid == caller, path
    assert Path("/etc/passwd").stat() == passwd or Path("/etc/passwd").stat().st_uid == 0
    assert daemon.docker("image", "ls", "--quiet", "--filter=dangling=true") == ""


@pytest.mark.parametrize("caller", [0, OTHER_USER])
@pytest.mark.parametrize("user", ["1000:1000", ""])
def test_a_run_leaves_no_setuid_file(daemon, store, folder, place, caller, user):
    """It is written into a directory that is closed to others, and harmless afterwards."""
    image = make(store, f"localhost/me/setuid{user.partition(':')[0]}:v1", "s", user=user)
    Docker(store).prepare(image)
    held = image.config.digest
    for path in (place, place.parent):
        os.chown(path, caller, caller)
    script = "echo a > /output/a && chmod 6755 /output/a && stat -c %a /output/a > /output/b"
    log = place.parent / "log"

    def call() -> int:
        engine = Docker(store, progress=Told(sys.stderr))
        engine._prepared[str(image.descriptor.digest)] = str(held)  # the store is root's here
        request = Request(image=image, command=("sh", "-c", script), output=place, log=log)
        done = execute(request, engine, metrics_of=(), output=place, log=log, seed=None)
        return done.run.status

    assert as_user(caller, call) == 0
    assert (place / "b").read_text() == "6755\n"
    assert (place / "a").stat().st_mode & 0o7777 == 0o755
    assert (place / "a").stat().st_uid == caller
    assert place.parent.stat().st_mode & 0o777 == 0o755


def test_no_permission_on_the_socket(daemon, store):
    """It is told as that, with what to do."""
    daemon.socket.chmod(0o600)

    def look() -> int:
        return int("no permission" not in (Docker(store).missing() or ""))

    assert as_user(OTHER_USER, look) == 0


def test_why_docker_cannot_be_used(daemon, store, monkeypatch):
    """A daemon that does not run, or runs elsewhere, is told as that."""
    assert Docker(store).missing() is None
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    assert Docker(store).missing() == "the Docker daemon is not running"
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@elsewhere")
    assert "another machine" in Docker(store).missing()
