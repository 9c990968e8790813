"""A real Docker Engine for tests, a base image made of Debian packages, and an index of wheels.

The engine is Debian's `docker.io`, started by the tests on folders and a socket of its own: it
never meets the machine's own Docker. Nothing here reaches a registry of images.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from tests.integration.registry import require

BASE_IMAGE = "debian-with-python:bookworm"
BASE_PYTHON = "3.11"
_PACKAGES = "python3,python3-venv,ca-certificates"
_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_MACHINES = ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "linux")


@dataclass(frozen=True, kw_only=True)
class RunningDocker:
    """A Docker Engine of the tests' own: its client, its socket, its log and its process."""

    client: str
    socket: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment in which any docker client talks to this engine."""
        config = str(self.socket.parent / "client")
        return {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": config,
            "DOCKER_BUILDKIT": "0",
        }

    def docker(self, *arguments: str | Path, check: bool = True, **more) -> str:
        """Run the client and return its output, both streams; a failure shows all of it."""
        done = subprocess.run(
            [self.client, *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **more,
        )
        if check and done.returncode:
            pytest.fail(f"docker {' '.join(map(str, arguments))}:\n{done.stdout[-4000:]}")
        return done.stdout

    def on_terminal(self, *arguments: str | Path, timeout: float = 300) -> tuple[int, str]:
        """Run the client on a terminal, as ``docker run -it`` needs; return status and output."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [self.client, *map(str, arguments)],
            env=self.environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        alarm = threading.Timer(timeout, process.kill)
        alarm.start()
        shown = bytearray()
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:  # Linux reports a terminal that nobody holds any more as EIO
            pass
        finally:
            status = process.wait()
            alarm.cancel()
            os.close(ours)
        return status, shown.decode(errors="replace").replace("\r\n", "\n")


@contextmanager
def running_docker() -> Iterator[RunningDocker]:
    """Run a Docker Engine with private folders; it and all it left are gone when the block ends."""
    require("dockerd")
    require("docker")
    if os.geteuid() != 0:
        pytest.skip("dockerd needs root")
    # Debian's own client where there is one: it speaks the version of Debian's engine.
    client = next((c for c in ("/usr/bin/docker",) if Path(c).exists()), "docker")
    # A short path: the name of a Unix socket ends at 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="torchship-docker-"))
    log = folder / "dockerd.log"
    address = folder / "docker.sock"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [
                "dockerd",
                f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}",
                f"--pidfile={folder / 'dockerd.pid'}",
                f"--host=unix://{address}",
                "--bridge=none",
                "--iptables=false",
            ],
            stdout=stream,
            stderr=stream,
            start_new_session=True,  # Ctrl-C in the tests is not for the engine: we stop it
        )
    try:
        engine = RunningDocker(client=client, socket=address, log=log, process=process)
        _wait(engine)
        yield engine
        _remove_containers(engine)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _unmount_below(folder)
        shutil.rmtree(folder)


def _wait(engine: RunningDocker) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and engine.process.poll() is None:
        answer = subprocess.run(
            [engine.client, "info"], env=engine.environment, capture_output=True, check=False
        )
        if answer.returncode == 0:
            return
        time.sleep(0.1)
    pytest.fail(f"dockerd did not start:\n{engine.log.read_text()[-3000:]}")


def _remove_containers(engine: RunningDocker) -> None:
    containers = engine.docker("ps", "--all", "--quiet").split()
    if containers:
        engine.docker("rm", "--force", *containers)


def _unmount_below(folder: Path) -> None:
    """Undo the mounts that a killed engine left, the innermost first."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if Path(mount).is_relative_to(folder):
            subprocess.run(["umount", "--lazy", mount], check=False)


def base_archive() -> Path:
    """Return a root filesystem as a tar: Debian bookworm with Python, made once for a machine.

    Debian's Python in it is externally managed (PEP 668), which is what a Dockerfile has to
    cope with. It carries the machine's own CA bundle, so that pip works behind its mirrors.
    """
    require("mmdebstrap")
    sources = next(
        (
            path
            for path in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
            if Path(path).exists()
        ),
        None,
    )
    if sources is None:
        pytest.skip("apt has no list of Debian mirrors on this machine")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "torchship-tests"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "bookworm-python.tar"
    with FileLock(folder / "bookworm-python.lock"):
        if archive.exists():
            return archive
        unfinished = folder / "unfinished.tar"
        command = [
            "mmdebstrap",
            "--variant=minbase",
            f"--include={_PACKAGES}",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            f"--customize-hook=upload {_CA_BUNDLE} {_CA_BUNDLE}",
            "bookworm",
            str(unfinished),
            sources,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"mmdebstrap:\n{done.stderr[-3000:]}")
        unfinished.rename(archive)
    return archive


@contextmanager
def wheel_index(folder: Path, *requirements: str) -> Iterator[str]:
    """Serve the wheels of some requirements on a loopback port; give the index's address.

    They come from wherever the machine's pip is configured to look. The folders of the index
    are laid out as the simple repository API has them (PEP 503).
    """
    pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["pip"]
    if pip == ["pip"]:
        require("pip")
    downloaded = folder / "downloaded"
    machine = os.uname().machine
    done = subprocess.run(
        [*pip, "download", "--quiet", "--dest", str(downloaded), "--only-binary=:all:"]
        + ["--python-version", BASE_PYTHON, "--implementation=cp"]
        + [f"--platform={name}_{machine}" for name in _MACHINES]
        + list(requirements),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"pip download {' '.join(requirements)}:\n{done.stderr[-3000:]}")
    simple = folder / "simple"
    for wheel in downloaded.iterdir():
        project = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        (simple / project).mkdir(parents=True, exist_ok=True)
        wheel.rename(simple / project / wheel.name)
    handler = functools.partial(_QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/simple/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: the test's own output is what counts."""
