"""Starting the sandbox from outside, and standing between it and the caller's terminal."""

from __future__ import annotations

import marshal
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, MappingProxyType

from msgspec import Struct, field

from torchship.engines import hosts, syscalls
from torchship.engines.relay import Relay, Streams
from torchship.engines.scratch import scratch_folder
from torchship.engines.signals import heard
from torchship.engines.specification import Specification
from torchship.engines.terminal import Terminal
from torchship.errors import EngineError

_BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv.pop()); "
    "from torchship.engines.sandbox import main; main()"
)
_PACKAGES = str(Path(__file__).parents[2])
_RESOLVER = Path("/etc/resolv.conf")


class Bind(Struct, frozen=True, kw_only=True):
    """A path of the host that is seen in the container."""

    source: Path
    target: str
    read_only: bool
    executable: bool = True

    @property
    def attributes(self) -> int:
        """What its mount is restricted to, in the bits of mount_setattr(2)."""
        fixed = syscalls.RDONLY if self.read_only else 0
        return fixed if self.executable else fixed | syscalls.NOEXEC


class Container(Struct, frozen=True, kw_only=True):
    """Everything that a sandbox is made of. ``layers`` are unpacked, the lowest first.

    ``uid`` and ``gid`` are those inside, which stand for the caller's; ``scratch`` is where the
    run keeps what it writes beside its mounts, on a file system that overlayfs can write to.
    ``devices`` are nodes of the host; ``links`` are symlinks made in the container, by path.
    """

    layers: Sequence[Path]
    command: tuple[str, ...]
    scratch: Path
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    workdir: str = "/"
    uid: int = 1000
    gid: int = 1000
    hostname: str = "torchship"
    binds: tuple[Bind, ...] = ()
    devices: tuple[Bind, ...] = ()
    links: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    network: bool = False
    processors: int | None = None
    prefix: tuple[str, ...] = ()
    """A command of the host that starts the sandbox under limits."""


def run(
    container: Container, streams: Streams, *, leaving: Callable[[Path], None] | None = None
) -> int:
    """Run a container to its end; return its exit status, 128 + N after signal N.

    ``leaving`` is shown the folder of what was written beside the mounts, before that goes.
    """
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder(container.scratch))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(ours)
        process, relay = _spawn(container, streams, scratch, theirs)
        stack.callback(_end, process)
        theirs.close()
        stack.callback(relay.close)
        stack.enter_context(_signals_to(ours, process))
        status = relay.until_exit(ours)
        code = process.wait()
        if leaving is not None:
            leaving(scratch / "upper")
        # 125 stands for a sandbox that could not say what went wrong
        return status if status is not None else 128 - code if code < 0 else code


def _spawn(
    container: Container, streams: Streams, scratch: Path, control: socket.socket
) -> tuple[subprocess.Popen[bytes], Relay]:
    terminal = streams.terminal
    specification = os.memfd_create("specification")
    try:
        with os.fdopen(specification, "wb", closefd=False) as stream:
            stream.write(marshal.dumps(dict(_specification(container, scratch, terminal))))
        os.lseek(specification, 0, os.SEEK_SET)
        passed = (specification, control.fileno())
        interpreter = (sys.executable, "-I", "-S", "-c", _BOOTSTRAP)
        piped = terminal is None
        process = subprocess.Popen(
            (*container.prefix, *interpreter, *map(str, passed), _PACKAGES),
            stdin=subprocess.PIPE if piped and streams.stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else subprocess.DEVNULL,
            stderr=subprocess.PIPE if piped else subprocess.DEVNULL,
            pass_fds=passed,
            env={},
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise EngineError(f"the sandbox could not be started: {error}") from error
    finally:
        os.close(specification)
    return process, Relay(streams, process)


def _specification(container: Container, scratch: Path, terminal: Terminal | None) -> Specification:
    layers = tuple(reversed(container.layers))
    for name in ("l", "upper", "work", "root"):
        (scratch / name).mkdir()
    for number, layer in enumerate(layers):
        (scratch / "l" / str(number)).symlink_to(layer)
    table = hosts.with_network if container.network else hosts.alone
    files = {
        "/etc/hosts": table(container.hostname).encode("utf-8", "surrogateescape"),
        "/etc/hostname": f"{container.hostname}\n".encode(),
    }
    if container.network and _RESOLVER.exists():
        files[str(_RESOLVER)] = _RESOLVER.read_bytes()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "uid": container.uid,
        "gid": container.gid,
        "hostname": container.hostname,
        "network": container.network,
        "root": {
            "scratch": str(scratch),
            "layers": len(layers),
            # Half the machine's memory, as Linux gives /dev/shm; Docker's 64 MB is too small
            # for the workers of a DataLoader
            "shared_memory": memory // 2,
            "mounts": [
                (str(bind.source), bind.target, bind.attributes) for bind in container.binds
            ],
            "devices": [(str(node.source), node.target) for node in container.devices],
            "files": files,
            "links": dict(container.links),
            "folders": [container.workdir, "/tmp"],  # noqa: S108 (in the container)
        },
        "command": [os.fsencode(word) for word in container.command],
        "environment": {
            os.fsencode(name): os.fsencode(value) for name, value in container.environment.items()
        },
        "workdir": os.fsencode(container.workdir),
        "terminal": terminal.size() if terminal else None,
        "processors": _chosen(container.processors),
    }


def _chosen(processors: int | None) -> list[int] | None:
    """Choose processors among those that this process may use."""
    if processors is None:
        return None
    return sorted(os.sched_getaffinity(0))[:processors]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


@contextmanager
def _signals_to(control: socket.socket, process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass signals on to the program; a second Ctrl-C ends it at once."""
    interrupted = 0

    def forward(number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted += number == signal.SIGINT
        try:
            control.send(
                bytes([signal.SIGKILL if interrupted > 1 else number]), socket.MSG_DONTWAIT
            )
        except OSError:
            process.kill()  # it ended a moment ago, or hears nothing any more

    with heard(forward):
        yield
