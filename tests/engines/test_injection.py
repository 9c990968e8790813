"""What the native engine does for the edits of CDI specifications, in real containers."""

import json
import shutil
from pathlib import Path

import pytest

from torchship.engines import injection
from torchship.engines.cdi import Registry
from torchship.engines.gpu import Gpus, native_injection
from torchship.engines.injection import LIBRARIES, inject
from torchship.engines.native import Native
from torchship.engines.request import Mount, Request
from torchship.errors import EngineError

from .conftest import PYTHON, libraries, linux

pytestmark = linux

KIND = "nvidia.com/gpu"
RO = ["ro", "nosuid", "nodev", "rbind", "rprivate"]


def hook(*args, path="/usr/bin/nvidia-cdi-hook", program="nvidia-cdi-hook"):
    """Return a hook as nvidia-ctk writes it."""
    return {"hookName": "createContainer", "path": path, "args": [program, *args]}


@pytest.fixture
def specify(tmp_path, monkeypatch):
    """Write a specification of one device, 0, with these edits; it is the machine's only one."""
    folder = tmp_path / "cdi"
    folder.mkdir()
    monkeypatch.setenv("TORCHSHIP_CDI_DIRS", str(folder))

    def write(common=None, **edits):
        edits = edits or {"env": ["ZERO=0"]}
        document = {
            "cdiVersion": "0.7.0",
            "kind": KIND,
            "devices": [{"name": name, "containerEdits": edits} for name in ("0", "all")],
            "containerEdits": common or {},
        }
        (folder / "gpu.json").write_text(json.dumps(document))
        return Registry.load([folder]).edits(KIND, ["0"])

    return write


@pytest.fixture
def run(store, image, tmp_path):
    """Run a command on the native engine with GPUs; return status and output."""

    def start(*command, gpus="all", **settings):
        out = tmp_path / "out"
        with out.open("wb") as sink:
            request = Request(
                image=image,
                command=command,
                gpus=Gpus.parse(gpus),
                stdout=sink.fileno(),
                stderr=sink.fileno(),
                **settings,
            )
            status = Native(store).run(request)
        return status, out.read_text()

    return start


@pytest.fixture
def library() -> Path:
    """Return a library of this machine that has a name of its own: ``libz.so.1.2.13``."""
    found = next(path for path in libraries(Path(PYTHON)) if path.name.startswith("libz.so"))
    return found.resolve()


def test_device_nodes_work_in_the_container(specify, run):
    """Below /dev and folders in it, under other names than the host's, for reading and writing."""
    specify(
        common={"deviceNodes": [{"path": "/dev/nvidiactl", "hostPath": "/dev/null"}]},
        deviceNodes=[
            {"path": "/dev/nvidia0", "hostPath": "/dev/zero", "permissions": "rw"},
            {"path": "/dev/nvidia-caps/nvidia-cap1", "hostPath": "/dev/full"},
        ],
    )
    status, out = run(
        "bash",
        "-c",
        "head -c 2 /dev/nvidia0 | python3 -I -S -c 'print(open(0, \"rb\").read())';"
        "echo gone >/dev/nvidiactl && echo wrote; stat -c '%F %t:%T' /dev/nvidia0;"
        "echo >/dev/nvidia-caps/nvidia-cap1 2>/dev/null || echo full",
    )
    assert status == 0
    assert [line for line in out.splitlines() if not line.startswith("bash:")] == [
        r"b'\x00\x00'",
        "wrote",
        "character special file 1:5",
        "full",
    ]


def test_devices_are_only_there_when_asked_for(specify, run):
    """And nothing of the specification either."""
    specify(
        common={"env": ["NVIDIA_VISIBLE_DEVICES=void"]},
        deviceNodes=[{"path": "/dev/nvidia0", "hostPath": "/dev/zero"}],
    )
    look = "ls /dev/nvidia0; echo $NVIDIA_VISIBLE_DEVICES"
    assert run("bash", "-c", look)[1] == "/dev/nvidia0\nvoid\n"
    assert "void" not in run("bash", "-c", look, gpus="none")[1]
    assert "No such file" in run("bash", "-c", look, gpus="none")[1]


def test_a_device_of_the_image_is_still_no_device(specify, run, tmp_path):
    """Only what the specification names: a mount with a node in it stays without devices."""
    specify(mounts=[{"hostPath": "/dev/zero", "containerPath": "/zero", "options": RO}])
    assert "refused" in run("bash", "-c", "head -c 1 /zero || echo refused")[1]


def test_files_are_mounted_as_their_options_say(specify, run, tmp_path):
    """Read-only, not to be executed, or to be written to."""
    for name in ("fixed", "open", "plain"):
        (tmp_path / name).write_text("#!/bin/bash\necho ran\n")
        (tmp_path / name).chmod(0o777)
    rights = {"fixed": RO, "open": ["rw", "rbind"], "plain": ["noexec", "bind"]}
    specify(
        mounts=[
            {"hostPath": str(tmp_path / name), "containerPath": f"/opt/x/{name}", "options": how}
            for name, how in rights.items()
        ]
    )
    status, out = run(
        "bash",
        "-c",
        "/opt/x/fixed; /opt/x/open; /opt/x/plain || echo not plain;"
        "echo >>/opt/x/fixed || echo not fixed; echo '# more' >>/opt/x/open",
    )
    assert status == 0
    assert [line for line in out.splitlines() if line.startswith(("ran", "not"))] == [
        "ran",
        "ran",
        "not plain",
        "not fixed",
    ]
    assert (tmp_path / "open").read_text().endswith("# more\n")


def test_a_mount_of_the_users_covers_the_specifications(specify, run, tmp_path):
    """On the same path the command line has the last word."""
    for name in ("theirs", "mine"):
        (tmp_path / name).write_text(name)
    specify(mounts=[{"hostPath": str(tmp_path / "theirs"), "containerPath": "/x", "options": RO}])
    mine = Mount(source=tmp_path / "mine", target="/x")
    assert run("cat", "/x", mounts=(mine,)) == (0, "mine")


def test_variables_stand_between_the_images_and_the_users(specify, run):
    """As the specification's rule of appending gives it; -e comes last."""
    specify(env=["FROM_IMAGE=2", "MINE=0"])
    mine = {"MINE": "1"}
    assert run("bash", "-c", "echo $FROM_IMAGE $MINE", environment=mine) == (0, "2 1\n")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/usr/bin/nvidia-cdi-hook", ("nvidia-cdi-hook",)),
        ("/usr/bin/nvidia-ctk", ("nvidia-ctk", "hook")),
    ],
)
def test_symlinks_are_made_as_the_hook_makes_them(specify, run, path, words):
    """In folders that the image may lack, and instead of files that it has."""
    program, *command = words
    links = ("--link", "libcuda.so.1::/opt/driver/libcuda.so", "--link=/x::/usr/bin/tty")
    specify({"hooks": [hook(*command, "create-symlinks", *links, path=path, program=program)]})
    status, out = run("readlink", "/opt/driver/libcuda.so", "/usr/bin/tty")
    assert (status, out) == (0, "libcuda.so.1\n/x\n")


def test_a_driver_library_is_found_by_its_short_name(specify, run, library, tmp_path):
    """What ldconfig would do: a link by the library's own name, in a folder that is searched."""
    shutil.copy(library, tmp_path / "libcuda.so.580.65.06")
    inside = "/usr/lib64/driver/libcuda.so.580.65.06"
    specify(
        {
            "hooks": [
                hook("create-symlinks", "--link", "libz.so.1::/usr/lib64/driver/libdev.so"),
                hook("enable-cuda-compat", "--host-driver-version=580.65.06"),
                hook("update-ldcache", "--folder", "/usr/lib64/driver"),
                hook("a-command-of-tomorrow"),
            ],
            "mounts": [
                {
                    "hostPath": str(tmp_path / "libcuda.so.580.65.06"),
                    "containerPath": inside,
                    "options": RO,
                }
            ],
        },
    )
    program = (
        "import ctypes, os; os.remove; ctypes.CDLL('libdev.so').zlibVersion;"
        "print(open('/proc/self/maps').read().count('libcuda.so.580.65.06') > 0,"
        "os.environ['LD_LIBRARY_PATH'], os.readlink('/usr/lib64/driver/libz.so.1'))"
    )
    status, out = run("python3", "-I", "-S", "-c", program)
    assert (status, out) == (0, f"True {LIBRARIES} libcuda.so.580.65.06\n")


def test_the_images_own_library_path_stays_in_front(specify, run, library):
    """Nothing of the image is hidden by the driver's folder."""
    folder = str(library.parent)
    mount = {"hostPath": str(library), "containerPath": str(library), "options": RO}
    specify({"hooks": [hook("update-ldcache", "--folder", folder)], "mounts": [mount]})
    mine = {"LD_LIBRARY_PATH": "/mine"}
    status, out = run("bash", "-c", "echo $LD_LIBRARY_PATH", environment=mine)
    assert (status, out) == (0, f"/mine:{LIBRARIES}\n")


def test_no_link_is_written_into_a_mounted_folder_of_the_host(specify, run, tmp_path):
    """Links are made before anything of the host is there."""
    folder = tmp_path / "driver"
    folder.mkdir()
    specify(
        {
            "hooks": [hook("create-symlinks", "--link", "x::/opt/driver/link")],
            "mounts": [{"hostPath": str(folder), "containerPath": "/opt/driver"}],
        }
    )
    assert run("true")[0] == 0
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ({"deviceNodes": [{"path": "/dev/nvidia77"}]}, "deviceNodes[0]: /dev/nvidia77 is not"),
        (
            {"deviceNodes": [{"path": "/dev/x", "hostPath": "/etc/passwd"}]},
            "deviceNodes[0]: /etc/passwd is no device node",
        ),
        (
            {"mounts": [{"hostPath": "/nowhere/libcuda.so.1", "containerPath": "/x"}]},
            "mounts[0].hostPath: /nowhere/libcuda.so.1 is not there",
        ),
        (
            {"mounts": [{"hostPath": "tmpfs", "containerPath": "/x", "type": "tmpfs"}]},
            "mounts[0]: a mount of type 'tmpfs'",
        ),
        (
            {"mounts": [{"hostPath": "/etc", "containerPath": "/x", "options": ["bind", "dev"]}]},
            "mounts[0]: a mount of type 'none' with bind,dev",
        ),
        ({"hooks": [hook(path="/opt/foreign/hook")]}, "hooks[0].path: the native engine runs no"),
        (
            {"hooks": [hook("create-symlinks", "--link", "a::../b")]},
            "hooks[0].args: 'a::../b' is not of the form",
        ),
    ],
)
def test_what_cannot_be_done_is_told_with_file_and_field(specify, tmp_path, edits, said):
    """A driver that was updated since, or a specification for engines with root."""
    placed = specify(**edits)
    with pytest.raises(EngineError) as caught:
        inject(placed)
    where = f"{tmp_path}/cdi/gpu.json: devices[0].containerEdits."
    assert caught.value.message.startswith(where + said)
    assert caught.value.hint


def test_no_gpu_needs_nothing(monkeypatch):
    """Not even a look at the specifications."""
    monkeypatch.setenv("TORCHSHIP_CDI_DIRS", "/proc/self/mem")
    assert native_injection(Gpus()) == injection.Injection()


def test_all_of_no_gpu_is_an_error(specify, run, tmp_path):
    """Never a run without the GPUs that were asked for."""
    (tmp_path / "cdi" / "gpu.json").unlink(missing_ok=True)
    with pytest.raises(EngineError, match=r"no CDI .* has the device nvidia\.com/gpu=all"):
        run("true")
