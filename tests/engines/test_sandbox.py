"""What a program in the sandbox gets, and what it gets at."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from torchship.engines.relay import StartError
from torchship.errors import EngineError

from .conftest import bind, linux

pytestmark = linux


def test_a_program_runs_and_its_output_and_status_come_back(sandbox):
    """Standard output, standard error and the exit status are the program's."""
    found = sandbox("bash", "-c", "echo out; echo err >&2; exit 7")
    assert (found.status, found.out, found.err) == (7, "out\n", "err\n")


def test_a_program_that_a_signal_ends_gives_128_and_its_number(sandbox):
    """A shell's convention, as Docker has it."""
    assert sandbox("bash", "-c", "kill -TERM $$").status == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [0, 1000])
def test_the_user_inside_is_the_one_asked_for(sandbox, number):
    """The caller's own uid and gid appear as those of the image's user."""
    found = sandbox("bash", "-c", "id -u; id -g", uid=number, gid=number)
    assert found.out.split() == [str(number), str(number)]


NESTED = """
import sys
from pathlib import Path
from torchship.engines.container import Container, run
from torchship.engines.relay import Streams
root, scratch = map(Path, sys.argv[1:])
command = ("id", "-u")
box = Container(layers=(root,), command=command, scratch=scratch, environment={"PATH": "/usr/bin"})
sys.exit(run(box, Streams(stdout=1, stderr=2)))
"""


def test_it_starts_in_a_namespace_whose_root_may_set_no_groups(root, tmp_path):
    """So it is in that of an ordinary user, as in a rootless container."""
    words = (sys.executable, "-c", NESTED, root, tmp_path / "scratch")
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1000\n"


def test_what_it_writes_belongs_to_the_caller(sandbox, tmp_path):
    """The output directory's files have the caller's owner, not that of the image's user."""
    output = tmp_path / "output"
    output.mkdir()
    sandbox("bash", "-c", "echo 1 > /output/metrics.json", binds=(bind(output, "/output"),))
    found = (output / "metrics.json").stat()
    assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())


def test_the_image_stays_as_it_is(sandbox, root):
    """What a program writes beside its mounts is gone with it, the layers untouched."""
    found = sandbox("bash", "-c", "echo evil > /etc/passwd; rm /usr/bin/id; cat /etc/passwd")
    assert found.out == "evil\n"
    assert (root / "usr/bin/id").exists()
    assert (root / "etc/passwd").read_text().startswith("root:")


def test_nothing_of_the_run_is_left(sandbox, tmp_path):
    """Even folders that nobody may enter, and very deep ones, are removed."""
    found = sandbox(
        "bash",
        "-c",
        "mkdir -p /tmp/a/b && chmod 0 /tmp/a; "
        "cd /workspace; for i in {1..150}; do mkdir dddddddddddddddd; cd dddddddddddddddd; done",
    )
    assert found.status == 0, found.err
    assert list((tmp_path / "scratch").iterdir()) == []


def test_only_the_environment_that_was_given_is_seen(sandbox, monkeypatch):
    """No variable of the caller leaks, not even through pid 1."""
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    found = sandbox("bash", "-c", "env; cat /proc/*/environ", environment={"GIVEN": "yes"})
    assert "GIVEN=yes" in found.out
    assert "hunter2" not in found.out
    assert {line.split("=")[0] for line in sandbox("env").out.splitlines()} == {"PATH"}


def test_odd_characters_reach_the_program_unchanged(sandbox):
    """Arguments and variables are bytes: no shell sees them."""
    odd = "a b\n'\"$(touch /tmp/x)`;\udcff\u00fc"
    found = sandbox("bash", "-c", 'printf %s "$1$V" | cat -A', "-", odd, environment={"V": odd})
    assert found.out.count("$(touch /tmp/x)`;") == 2
    assert found.out.count("M-^?M-CM-<") == 2


def test_no_host_path_is_seen(python, tmp_path):
    """Neither files, nor the names of host folders, nor the old root below the mounts."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    found = python(
        f"""
import os, json
seen = [path for path in ({str(secret)!r}, {str(Path(__file__))!r}, "/etc/shadow", "/home", "/root")
        if os.path.exists(path)]
escapes = []
for start in ("/proc/1/root", "/proc/1/cwd", "/proc/self/root" + {str(secret)!r}):
    try:
        os.listdir(start); escapes.append(start)
    except OSError:
        pass
print(json.dumps([seen, escapes, sorted(os.listdir("/"))]))
"""
    )
    seen, escapes, top = json.loads(found.out)
    assert (seen, escapes) == ([], [])
    assert "root" not in top and "home" not in top


def test_the_command_line_of_pid_1_names_no_host_path(sandbox):
    """What started the container is hidden."""
    found = sandbox("bash", "-c", "cat -v /proc/1/cmdline; cat /proc/1/maps; ls /proc/1/fd")
    assert found.out.startswith("torchship-init")
    assert "/" not in found.out


def test_no_process_of_the_host_is_seen_or_killed(python):
    """Pid 1 is the sandbox's own, and only what runs inside has a number."""
    found = python(
        f"""
import os
print(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
try:
    os.kill({os.getpid()}, 9)
except OSError as error:
    print(type(error).__name__)
os.kill(-1, 0)
"""
    )
    assert found.out == "[1, 2]\nProcessLookupError\n"


def test_pid_1_can_be_neither_stopped_nor_traced(python):
    """The program cannot take hold of what would report its end."""
    found = python(
        """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
os.kill(1, signal.SIGKILL)
os.kill(1, signal.SIGSTOP)
print(libc.ptrace(16, 1, 0, 0), os.strerror(ctypes.get_errno()))
try:
    open("/proc/1/mem", "rb")
except PermissionError:
    print("closed")
"""
    )
    assert (found.status, found.out) == (0, "-1 Operation not permitted\nclosed\n")


@pytest.mark.parametrize("uid", [0, 1000])
def test_every_capability_is_gone_for_good(python, uid):
    """No set holds any, and a setuid program would give none back."""
    found = python('print(open("/proc/self/status").read())', uid=uid, gid=uid)
    status = dict(line.split(":\t") for line in found.out.splitlines() if ":\t" in line)
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


@pytest.mark.parametrize("uid", [0, 1000])
def test_mounts_namespaces_and_devices_are_refused(python, uid):
    """With neither capabilities nor user namespaces of its own, a program changes no mount."""
    found = python(
        """
import ctypes, os, stat
libc = ctypes.CDLL(None, use_errno=True)
def tried(result):
    return "allowed" if result == 0 else os.strerror(ctypes.get_errno())
print(tried(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)))
print(tried(libc.mount(b"none", b"/proc/sys", None, 0x1020, None)))
print(tried(libc.umount2(b"/proc/sys", 2)))
print(tried(libc.unshare(0x10000000)))
print(tried(libc.unshare(0x00020000)))
print(tried(libc.chroot(b"/tmp")))
try:
    os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(254, 0))
    print("allowed")
except PermissionError as error:
    print(error.strerror)
""",
        uid=uid,
        gid=uid,
    )
    answers = found.out.splitlines()
    assert len(answers) == 7, found.err
    assert set(answers) <= {
        "Operation not permitted",
        "No space left on device",
        "Invalid argument",
    }


@pytest.mark.parametrize("uid", [0, 1000])
def test_proc_changes_nothing_of_the_host(python, uid):
    """Not even for root, who owns most of /proc/sys and /proc/sysrq-trigger."""
    found = python(
        """
import os
writable, told = [], []
for top, folders, files in os.walk("/proc"):
    folders[:] = [name for name in folders if not (top == "/proc" and name.isdigit())]
    for name in files:
        path = os.path.join(top, name)
        if os.path.islink(path) or os.stat(path).st_rdev:
            continue
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            writable.append(path)
        except OSError:
            pass
for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kpageflags", "/proc/kmsg"):
    if os.path.exists(path):
        try:
            if os.read(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 1):
                told.append(path)
        except OSError:
            pass
print([path for path in writable if not path.startswith(("/proc/self", "/proc/thread-self"))], told)
""",
        uid=uid,
        gid=uid,
    )
    assert found.out == "[] []\n", found.err


def test_the_devices_are_the_harmless_ones(sandbox):
    """No disk, no terminal of the host, no memory."""
    found = sandbox("ls", "/dev")
    expected = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert found.out.split() == expected.split()
    assert sandbox("bash", "-c", "echo x > /dev/null; head -c 4 /dev/zero | cat -v").out == "^@" * 4


def test_shared_memory_is_large(python):
    """The workers of a DataLoader pass tensors through it; Docker's 64 MB are not enough."""
    found = python('import os; s = os.statvfs("/dev/shm"); print(s.f_blocks * s.f_frsize)')
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert int(found.out) == pytest.approx(total / 2, rel=0.01)


def test_the_kernel_keys_of_the_caller_stay_with_them(python):
    """A session keyring of its own stands in for the caller's."""
    number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    found = python(
        f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall({number}, 0, -3, 0))  # KEYCTL_GET_KEYRING_ID of the session keyring
"""
    )
    import ctypes

    ours = ctypes.CDLL(None).syscall(number, 0, -3, 1)
    assert int(found.out) != ours


@pytest.fixture
def server():
    """Listen on the host's loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


CONNECT = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", {}), 2)
    print("reached")
except OSError as error:
    print(error.strerror)
"""


def test_the_network_is_out_of_reach_unless_asked_for(python, server):
    """Not even a server on the host's own loopback interface answers."""
    assert python(CONNECT.format(server)).out == "Connection refused\n"
    assert python(CONNECT.format(server), network=True).out == "reached\n"


def test_a_program_can_talk_to_itself_without_a_network(python):
    """torch.distributed meets on 127.0.0.1 even in one container."""
    found = python(
        """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
    print(socket.gethostbyname("localhost"), socket.gethostname())
""",
        hostname="abc123",
    )
    assert found.out == "127.0.0.1 abc123\n"


def test_mounts_are_read_only_where_asked(sandbox, tmp_path):
    """A read-only mount cannot be written, another one can; a file can be mounted as well."""
    fixed, free, file = tmp_path / "fixed", tmp_path / "free", tmp_path / "file"
    fixed.mkdir()
    free.mkdir()
    (fixed / "data").write_text("data")
    file.write_text("file")
    found = sandbox(
        "bash",
        "-c",
        "cat /data/data /new/place/file; echo x > /data/y || echo x > /work/y",
        binds=(
            bind(fixed, "/data", True),
            bind(free, "/work"),
            bind(file, "/new/place/file", True),
        ),
    )
    assert found.out == "datafile"
    assert (free / "y").read_text() == "x\n"
    assert not (fixed / "y").exists()


def test_a_mount_through_a_symlink_of_the_image_stays_inside(sandbox, root, tmp_path):
    """An image whose folders point to the host's gets nothing made there."""
    evil, host, data = tmp_path / "evil", tmp_path / "host", tmp_path / "data"
    for folder in (evil, host, data):
        folder.mkdir()
    (evil / "output").symlink_to(host)
    (evil / "link").symlink_to("/tmp")
    binds = (bind(data, "/link/deep"),)
    assert sandbox("ls", "/tmp", layers=(root, evil), binds=binds).out == "deep\n"
    with pytest.raises(StartError, match="/output"):
        sandbox("ls", layers=(root, evil), binds=(bind(data, "/output/deep"),))
    (evil / "proc").symlink_to(host)
    with pytest.raises(StartError, match="/proc"):
        sandbox("ls", layers=(root, evil))
    assert list(host.iterdir()) == []


def test_127_layers_are_stacked_topmost_first(sandbox, root, tmp_path):
    """As many as Docker takes, with long names; each adds a file, each replaces another."""
    layers = [root]
    for number in range(126):
        layer = tmp_path / ("x" * 200) / f"{number}"
        layer.mkdir(parents=True)
        (layer / f"file{number}").touch()
        (layer / "top").write_text(str(number))
        layers.append(layer)
    found = sandbox(
        "bash", "-c", "cat /top; files=(/file*); echo ${#files[@]}", layers=tuple(layers)
    )
    assert found.out == "125126\n"


def test_a_program_that_does_not_exist_is_an_error(sandbox):
    """The image has no such program: that is not the program's exit status."""
    with pytest.raises(StartError) as caught:
        sandbox("no-such-program")
    assert (caught.value.stage, "no-such-program" in caught.value.detail) == ("program", True)


def test_an_image_cannot_slip_a_module_to_pid_1(sandbox, root, tmp_path):
    """Once the root is switched, the sandbox imports nothing more: those files are the image's."""
    evil = tmp_path / "evil"
    library = evil / Path(os.__file__).parent.relative_to("/")
    library.mkdir(parents=True)
    for name in ("warnings.py", "struct.py", "signal.py", "traceback.py", "encodings.py"):
        (library / name).write_text("open('/output/owned', 'w')")
    output = tmp_path / "output"
    output.mkdir()
    found = sandbox("true", layers=(root, evil), binds=(bind(output, "/output"),))
    assert (found.status, list(output.iterdir())) == (0, [])


def test_children_left_behind_end_with_the_program(sandbox, tmp_path):
    """A daemon that outlives its parent is killed, and does not keep the run waiting."""
    began = time.monotonic()
    found = sandbox("bash", "-c", "(setsid sleep 60 &) ; echo done")
    assert found.out == "done\n"
    assert time.monotonic() - began < 10


STARTER = """
import sys
from pathlib import Path
from torchship.engines.container import Container, run
from torchship.engines.relay import Streams
box = Container(layers=(Path(sys.argv[1]),), command=tuple(sys.argv[3:]), scratch=Path(sys.argv[2]),
                environment={"PATH": "/usr/bin"})
sys.exit(run(box, Streams(stdin=0)))
"""


@pytest.fixture
def started(root, tmp_path):
    """Start a container from a process of its own, which can be sent signals."""
    processes = []

    def start(*command):
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, root, tmp_path / "scratch", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


TRAP = "trap 'echo got {0}; exit 5' {0}; echo ready; while :; do sleep 0.1; done"


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_signals_reach_the_program_which_may_clean_up(started, name):
    """Ctrl-C and a request to end are the program's to answer."""
    process = started("bash", "-c", TRAP.format(name))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.stdout.readline() == f"got {name}\n"
    assert process.wait(10) == 5


def test_what_the_caller_ignores_does_not_reach_the_program(started):
    """A run under nohup outlives its terminal."""
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = started("bash", "-c", "echo ready; sleep 0.5; echo still here")
    finally:
        signal.signal(signal.SIGHUP, former)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.stdout.readline() == "still here\n"
    assert process.wait(10) == 0


def test_an_untrapped_signal_ends_the_program(started):
    """The program is not pid 1, to which the kernel would not deliver it."""
    process = started("bash", "-c", "echo ready; exec sleep 60")
    process.stdout.readline()
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM


def test_a_second_ctrl_c_kills(started):
    """A program that does not listen is ended all the same."""
    process = started("bash", "-c", "trap 'echo no' INT; echo ready; while :; do sleep 0.1; done")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "no\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 128 + signal.SIGKILL


def test_a_killed_caller_leaves_nothing_running(started, tmp_path):
    """After kill -9 of the caller, the container is gone; the next run removes its folder."""
    marker = f"{os.getpid()}{time.time_ns()}"
    process = started("bash", "-c", f"echo ready; : {marker}; sleep 60; :")
    process.stdout.readline()
    assert running(marker)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while running(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(marker)
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    started("true").wait()
    assert list((tmp_path / "scratch").iterdir()) == []


def running(marker: str) -> list[str]:
    """Return the command lines on this machine, but for the caller's, that hold a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if marker in line and "-c\0import" not in line and "Container" not in line:
            found.append(line)
    return found


def test_standard_input_is_passed_on_to_its_end(started):
    """With -i a program reads what the caller's standard input gives, however much it is."""
    process = started("python3", "-ISc", "import sys; print(len(sys.stdin.buffer.read()))")
    out, _ = process.communicate("x" * 3_000_000, timeout=20)
    assert (out, process.returncode) == ("3000000\n", 0)


def test_a_program_that_ignores_its_input_ends_the_run(started):
    """An input that nobody reads, and that stays open, does not keep the run waiting."""
    process = started("true")
    assert process.wait(10) == 0


def test_output_larger_than_a_pipe_comes_whole(sandbox):
    """No byte is lost when the program ends right after printing."""
    found = sandbox("bash", "-c", "head -c 5000000 /dev/zero")
    assert len(found.out) == 5_000_000


def test_a_reader_that_goes_away_is_the_programs_to_meet(sandbox, tmp_path):
    """As with `| head` and no container: the program's next write fails, and its log is whole."""
    read, write = os.pipe()
    os.close(read)
    with (tmp_path / "log").open("w+b") as log:
        streams = {"log": log, "stdout": write}
        done = sandbox("sh", "-c", "while :; do echo line; done", streams=streams)
        assert done.status == 128 + signal.SIGPIPE
        log.seek(0)
        assert log.readline() == b"line\n"


def test_the_log_can_be_followed(sandbox, tmp_path):
    """What a program printed is in the log while it runs."""
    (tmp_path / "logs").mkdir()
    wait = "for i in {1..200}; do read -r said </logs/log && break; sleep 0.05; done"
    with (tmp_path / "logs" / "log").open("wb") as log:
        found = sandbox(
            "bash",
            "-c",
            f'echo line; {wait}; echo "read: $said"',
            binds=(bind(tmp_path / "logs", "/logs"),),
            streams={"log": log},
        )
    assert found.out == "line\nread: line\n"


def test_output_that_has_no_room_is_told(sandbox):
    """A full disk behind the caller's standard output ends the program, with the reason."""
    with Path("/dev/full").open("wb") as full, pytest.raises(EngineError, match="No space left"):
        sandbox("sh", "-c", "while :; do echo line; done", streams={"stdout": full.fileno()})
