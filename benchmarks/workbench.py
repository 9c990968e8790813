"""What the benchmarks share: a primed store, an index of its wheels, a virtual environment.

Everything is in one temporary folder, made when it is first asked for and gone at the end. The
user's own store, images and Docker are never touched.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import os
import shutil
import sys
import threading
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from msgspec.structs import replace

from benchmarks.sides import Failed, LeftOut, output, say, seconds
from torchship.digest import Digest
from torchship.platform import Platform
from torchship.project import lock as locks
from torchship.project import lockfile, resolve
from torchship.project.fetch.downloads import Downloads
from torchship.project.lock import Lock, PlatformLock
from torchship.project.project import load

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "mnist"
PIP = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["pip"]
TORCHSHIP = Path(sys.executable).with_name("torchship")
_OF_RUNS = shutil.ignore_patterns("data", "output", "runs", "__pycache__")


class Workbench:
    """The scratch folder, and what is made in it."""

    def __init__(self, scratch: Path, stack: ExitStack) -> None:
        self.scratch = scratch
        self.stack = stack
        self.notes: list[str] = []
        self.home = scratch / "home"
        self.environment = {**os.environ, "TORCHSHIP_HOME": str(self.home)}
        # An installed torchship has bytecode of its own modules; a checkout makes it once.
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def leave_out(self, what: str, why: LeftOut) -> None:
        """Note what is not in the table."""
        self.note(f"{what} is left out: {why}")

    def note(self, line: str) -> None:
        """Keep a line that belongs below the table."""
        say(line)
        self.notes.append(line)

    @cached_property
    def project(self) -> Path:
        """examples/mnist, built once: every file that it needs is in the store's downloads."""
        folder = self.scratch / "mnist"
        shutil.copytree(EXAMPLE, folder, ignore=_OF_RUNS)
        build = [TORCHSHIP, "build", folder]
        say("getting the files of examples/mnist, and building it once")
        try:
            output(build, self.environment)
        except Failed as first:
            say(str(first))
            try:
                output([TORCHSHIP, "lock", "--upgrade", folder], self.environment)
                output(build, self.environment)
                self.note("The committed lock has aged: these figures are of a fresh one.")
            except Failed as second:
                say(str(second))
                settings = folder / "pyproject.toml"
                without = settings.read_text().partition("[[tool.torchship.data]]")[0]
                settings.write_text(without)
                (folder / locks.FILENAME).unlink(missing_ok=True)
                output(build, self.environment)
                self.note("MNIST is left out of the image: no source of it answers.")
        return folder

    def image(self) -> str:
        """Build the project and return the image's digest."""
        return output([TORCHSHIP, "build", self.project], self.environment).strip()

    def cold_build(self) -> float:
        """Build the project with nothing in the store but the downloads; return the seconds."""
        self.forget()
        return seconds([TORCHSHIP, "build", self.project], self.environment)

    @cached_property
    def uncompiled(self) -> Path:
        """Return the same project with no bytecode in its image."""
        folder = self.scratch / "uncompiled" / "mnist"
        shutil.copytree(self.project, folder)
        settings = folder / "pyproject.toml"
        table = "[tool.torchship]\n"
        settings.write_text(settings.read_text().replace(table, f'{table}bytecode = "none"\n', 1))
        return folder

    def cold_build_uncompiled(self) -> float:
        """Build that with nothing in the store but the downloads; return the seconds."""
        self.forget()
        return seconds([TORCHSHIP, "build", self.uncompiled], self.environment)

    @cached_property
    def script(self) -> Path:
        """Return a project of one script, locked to the same base and nothing besides."""
        folder = self.scratch / "script"
        folder.mkdir()
        settings = (self.project / "pyproject.toml").read_text()
        folder.joinpath("pyproject.toml").write_text(settings.partition("[[tool.torchship.data")[0])
        folder.joinpath("main.py").write_text("print()\n")
        found = resolve.sources(load(folder))
        lock = replace(
            self.lock,
            inputs=lockfile.inputs(found),
            resolved_from=found,
            platforms=tuple(replace(entry, wheels=()) for entry in self.lock.platforms),
            data=(),
        )
        locks.save(lock, folder / locks.FILENAME)
        return folder

    def build_on_a_base(self) -> float:
        """Build examples/mnist where the store has the base and nothing else of it; the seconds."""
        self.forget()
        output([TORCHSHIP, "build", self.script], self.environment)
        os.sync()
        return seconds([TORCHSHIP, "build", self.project], self.environment)

    def forget(self) -> None:
        """Empty the store, but for the downloads."""
        for entry in self.home.iterdir():
            if entry.name != "downloads":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        os.sync()

    @cached_property
    def lock(self) -> Lock:
        """The project's lock."""
        return locks.load(self.project / locks.FILENAME)

    @property
    def pins(self) -> PlatformLock:
        """What the lock pins for this machine."""
        return self.lock.platform(Platform.host())

    def download(self, digest: Digest, filename: str) -> Path:
        """Return a file of the lock."""
        return Downloads(self.home / "downloads").place(digest, filename)

    @cached_property
    def index(self) -> str:
        """The address of a package index on this machine, of the lock's own wheels (PEP 503)."""
        folder = self.scratch / "index"
        for pin in self.pins.wheels:
            place = folder / "simple" / pin.name
            place.mkdir(parents=True, exist_ok=True)
            (place / pin.filename).symlink_to(self.download(pin.digest, pin.filename))
        handler = functools.partial(_Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.stack.callback(server.server_close)
        self.stack.callback(server.shutdown)
        return f"http://127.0.0.1:{server.server_address[1]}/simple/"

    @cached_property
    def python(self) -> Path:
        """The Python of a virtual environment into which pip has put the same wheels."""
        minor = ".".join(self.pins.python.split(".")[:2])
        system = Path(f"/usr/bin/python{minor}")
        found = system if system.exists() else shutil.which(f"python{minor}")
        if found is None:
            raise LeftOut(f"there is no Python {minor}, which the lock's wheels are for")
        folder = self.scratch / "venv"
        say(f"making a virtual environment of {found} with the same wheels")
        output([found, "-m", "venv", "--without-pip", folder])
        python = folder / "bin" / "python"
        pip = [*PIP, "--python", python, "install", "--quiet"]
        requirements = self.project / "requirements.txt"
        # the index here is the only one: nothing of the machine's pip settings counts
        bare = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
        bare |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        output([*pip, "--index-url", self.index, "--requirement", requirements], bare)
        return python


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: standard error is for the story of the run."""
