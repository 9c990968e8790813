"""What the docker and podman engines are tested with: an image of this machine's programs."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace
from tests.engines.conftest import add_file, libraries

from torchship import canonical
from torchship.digest import Digest
from torchship.layers.archive import Archive, Entry, Kind
from torchship.layers.layer import Materials
from torchship.oci import mediatypes
from torchship.oci.image import Image, read_one
from torchship.oci.store import Store
from torchship.platform import Platform

PROGRAMS = (
    "bash",
    "cat",
    "chmod",
    "env",
    "dd",
    "grep",
    "id",
    "ls",
    "ln",
    "mkdir",
    "sleep",
    "stat",
    "stty",
    "tee",
)
UID = 1000
PASSWD = b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"


@dataclass(frozen=True, kw_only=True)
class Files:
    """A recipe of this machine's programs, or of a few bytes."""

    title: str
    text: bytes = b""

    @property
    def origin(self):
        """Nothing came from elsewhere."""
        return {}

    @property
    def inputs(self):
        """What the bytes depend on."""
        return [self.title, Digest.of(self.text).hex]

    @property
    def needs(self):
        """No files."""
        return ()

    def write(self, archive: Archive, materials: Materials) -> None:
        """Write the entries."""
        if self.title == "huge passwd":
            archive.add(Entry(path="etc/passwd", kind=Kind.SYMLINK, target="/"))
            return
        if self.title != "programs":
            archive.add(Entry(path=f"srv/{self.title}", size=len(self.text)), [self.text])
            return
        for top in ("bin", "lib", "lib64", "sbin"):
            archive.add(Entry(path=top, kind=Kind.SYMLINK, target=f"usr/{top}"))
        for folder, mode, uid in (
            ("tmp", 0o1777, 0),
            ("workspace", 0o755, UID),
            ("output", 0o755, UID),
        ):
            archive.add(Entry(path=folder, kind=Kind.DIRECTORY, mode=mode, uid=uid, gid=uid))
        archive.add(Entry(path="usr/bin/sh", kind=Kind.SYMLINK, target="bash"))
        programs = [Path("/usr/bin") / name for name in PROGRAMS]
        needed = libraries(*programs)
        needed |= {library.resolve() for library in needed if library.name.startswith("ld-")}
        for program in (*programs, *sorted(needed)):
            path = str(program).lstrip("/")
            add_file(archive, path if path.startswith("usr/") else f"usr/{path}", program)
        archive.add(Entry(path="etc/passwd", size=len(PASSWD)), [PASSWD])


def make(
    store: Store,
    name: str | None,
    *texts: str,
    user: str = "1000:1000",
    also: tuple[str, ...] = (),
    volumes: tuple[str, ...] = (),
) -> Image:
    """Put an image of programs and of layers of given texts into a store, under a name."""
    recipes = [Files(title=title) for title in ("programs", *also)]
    recipes += [Files(title=f"text{place}", text=text.encode()) for place, text in enumerate(texts)]
    scratch = store.home
    layers = [store.derive(recipe, Materials(files={}, scratch=scratch)) for recipe in recipes]
    config = {
        "architecture": Platform.host().architecture,
        "os": "linux",
        "config": {
            "Cmd": ["sh", "-c", "echo the image; exit 3"],
            "Env": ["PATH=/usr/bin", "FROM_IMAGE=1"],
            "WorkingDir": "/workspace",
            "User": user,
            "Labels": {"dev.torchship.python": "3.11"},
            "Volumes": {place: {} for place in volumes},
        },
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": store.put(canonical.encode(config), mediatypes.OCI_CONFIG).as_json(),
        "layers": [layer.descriptor.as_json() for layer in layers],
    }
    written = store.put(canonical.encode(manifest), mediatypes.OCI_MANIFEST)
    descriptor = replace(written, platform=Platform.host().as_json())
    if name is not None:
        store.tag(name, descriptor)
    return read_one(store, descriptor)


@contextmanager
def public_folder() -> Iterator[Path]:
    """Give a folder with a short path that every user of the machine may enter."""
    folder = Path(tempfile.mkdtemp(prefix="torchship-c-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def as_user(uid: int, function: Callable[[], int], *, groups: tuple[int, ...] = ()) -> int:
    """Call a function as another user, in a process of its own; return what it returned."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    code = 99
    try:
        os.setgroups(groups)
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os.environ["HOME"] = "/nonexistent"
        code = function()
    finally:
        os._exit(code)


RUNNER = """
import sys
from pathlib import Path
from torchship.engines.{engine} import {kind}
from torchship.engines.request import Request
from torchship.oci.image import read_one
from torchship.oci.store import Store

store = Store.open(Path(sys.argv[1]))
image = read_one(store, store.find(sys.argv[2]))
command = ("sh", "-c", sys.argv[3])
flags = dict(interactive="-i" in sys.argv, tty="-t" in sys.argv)
sys.exit({kind}(store).run(Request(image=image, command=command, **flags)))
"""


def runner(engine: str, store: Store, name: str, script: str, *flags: str) -> list[str]:
    """Return a command line that runs a script in an image by an engine."""
    code = RUNNER.format(engine=engine, kind=engine.capitalize())
    return [sys.executable, "-c", code, str(store.home), name, script, *flags]


def conversation(command: list[str], turns: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
    """Run a command on a terminal; after each of the texts, type the answer."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 91, 0, 0))
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    alarm = threading.Timer(60, process.kill)
    alarm.start()
    shown, waiting = b"", list(turns)
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
            if waiting and waiting[0][0] in shown:
                os.write(ours, waiting.pop(0)[1])
    except OSError:  # Linux reports a terminal that nobody holds any more as EIO
        pass
    finally:
        status = process.wait()
        alarm.cancel()
        os.close(ours)
    return status, shown
