"""The other side: a Dockerfile as tutorials have it, on a Docker Engine of this run's own.

The engine, Debian's `docker.io`, and the base image are those of the tests.
"""

from __future__ import annotations

import shutil
import subprocess
import zlib
from functools import cached_property
from pathlib import Path

import pytest
from tests.integration.engines import RunningDocker, base_archive, running_docker

from benchmarks.sides import Failed, LeftOut, say, seconds
from benchmarks.workbench import EXAMPLE, Workbench

DOCKERFILE = """\
FROM base
COPY . /root/example
WORKDIR /root/example
RUN pip install -r requirements.txt
"""
# What published Python images have and Debian's packages lack: a pip that may install. It is
# made before the clock starts.
_BASE = """\
FROM debian
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_INDEX_URL={index} PIP_DISABLE_PIP_VERSION_CHECK=1
"""
_TAG = "tutorial"


class Tutorial:
    """A Dockerfile that copies the code, and then installs what the code needs."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    @cached_property
    def engine(self) -> RunningDocker:
        """The engine, with the base image in it. Raises `LeftOut`."""
        bench = self._bench
        try:
            archive = base_archive()
            engine = bench.stack.enter_context(running_docker())
        except (pytest.skip.Exception, pytest.fail.Exception) as why:
            raise LeftOut(str(why)) from None
        say("making the base image of the Docker side")
        base = bench.scratch / "base"
        base.mkdir()
        (base / "Dockerfile").write_text(_BASE.format(index=bench.index))
        self._docker(engine, "import", archive, "debian:latest")
        self._docker(engine, "build", "--network=host", "--tag=base", base)
        return engine

    @cached_property
    def best(self) -> Path:
        """The folder of examples/mnist with its own Dockerfile: dependencies before code."""
        folder = self._bench.scratch / "best"
        folder.mkdir()
        for name in ("main.py", "requirements.txt", "Dockerfile", ".dockerignore"):
            shutil.copyfile(EXAMPLE / name, folder / name)
        return folder

    @cached_property
    def folder(self) -> Path:
        """The tutorial's own: main.py, requirements.txt and a Dockerfile of four lines."""
        folder = self._bench.scratch / "tutorial"
        folder.mkdir()
        for name in ("main.py", "requirements.txt"):
            shutil.copyfile(EXAMPLE / name, folder / name)
        (folder / "Dockerfile").write_text(DOCKERFILE)
        return folder

    def prepare(self) -> None:
        """Start the engine and make the base image. Raises `LeftOut`."""
        assert self.engine

    def build(self) -> float:
        """Build the image from nothing but its base; return the seconds."""
        engine = self.engine
        command = [engine.client, "build", "--no-cache", "--network=host", f"--tag={_TAG}"]
        return seconds([*command, self.folder], engine.environment)

    def size(self) -> int:
        """Return the bytes of the image's archive after gzip -6, which is what a push sends."""
        engine = self.engine
        if not engine.docker("images", "--quiet", _TAG).strip():
            self.build()
        say("compressing the Docker side's image")
        encoder = zlib.compressobj(6, zlib.DEFLATED, 31)
        total = 0
        command = [engine.client, "save", _TAG]
        with subprocess.Popen(command, env=engine.environment, stdout=subprocess.PIPE) as process:
            assert process.stdout
            while chunk := process.stdout.read(1 << 20):
                total += len(encoder.compress(chunk))
        if process.returncode:
            raise Failed(f"docker save exited with {process.returncode}")
        return total + len(encoder.flush())

    def _docker(self, engine: RunningDocker, *arguments: str | Path) -> None:
        seconds([engine.client, *arguments], engine.environment)
