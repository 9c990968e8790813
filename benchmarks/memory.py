"""Peak memory of a build: of examples/mnist, and of a project with a wheel of 1 GB.

The resident memory of every process of the build is read every 10 ms and added up, so that
pages which they share count several times: the true peak is lower. The largest process is by
the kernel's own high-water mark.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure, Spread, below
from benchmarks.sides import Failed, LeftOut, output, say
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import TORCHSHIP, Workbench

ROUNDS = 1
AIM = 300  # MB
_EVERY = 0.01  # seconds
_NAME = "torchship_benchmark_large"
_MEMBER = 1 << 29  # bytes of each of two members, one stored and one deflated


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """Megabytes: of all processes at once, and of the largest."""

    together: float
    largest: float


def measure(bench: Workbench, tutorial: Tutorial, rounds: int) -> list[Figure]:  # noqa: ARG001
    """Watch a cold build, and one with a large wheel."""
    peaks = []
    for _ in range(rounds):
        assert bench.project
        bench.forget()
        peaks.append(watch([TORCHSHIP, "build", bench.project], bench.environment))
    figures = _figures("examples/mnist", peaks)
    say(f"  examples/mnist: {peaks[0]}")
    try:
        peak = _large(bench)
    except LeftOut as why:
        bench.leave_out("memory: a large wheel", why)
        return figures
    say(f"  a wheel of 1 GB: {peak}")
    return figures + _figures("a wheel of 1 GB", [peak])


def watch(command: Sequence[str | Path], environment: Mapping[str, str]) -> Peak:
    """Run a command and return its peak. Raises `Failed`."""
    together = largest = 0
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(command, env=environment, stdout=said, stderr=said) as process:
            while process.poll() is None:
                sizes = [_resident(pid) for pid in _family(process.pid)]
                together = max(together, sum(now for now, _ in sizes))
                largest = max([largest, *(peak for _, peak in sizes)])
                time.sleep(_EVERY)
        if process.returncode:
            said.seek(0)
            raise Failed(said.read().decode(errors="replace")[-1500:].strip())
    return Peak(together=together * 1024 / 1e6, largest=largest * 1024 / 1e6)


def _figures(what: str, peaks: Sequence[Peak]) -> list[Figure]:
    together = Spread(values=tuple(peak.together for peak in peaks), unit="MB")
    largest = Spread(values=tuple(peak.largest for peak in peaks), unit="MB")
    return [
        Figure(what=f"peak memory of a build, {what}", mine=together, aim=below(AIM, together)),
        Figure(what="· its largest process", mine=largest),
    ]


def _family(pid: int) -> Iterator[int]:
    """Yield a process and all that it and its descendants started, those that still are."""
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [word for task in threads for word in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it ended just now
        return
    for child in children:
        yield from _family(int(child))


def _resident(pid: int) -> tuple[int, int]:
    """Return resident memory and its peak, in KiB (proc(5), VmRSS and VmHWM)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    fields = dict(line.split(":", 1) for line in lines if line.startswith("Vm"))
    return tuple(int(fields.get(name, "0 kB").split()[0]) for name in ("VmRSS", "VmHWM"))


def _large(bench: Workbench) -> Peak:
    if shutil.disk_usage(bench.scratch).free < 10 * _MEMBER:
        raise LeftOut("there is too little room for a wheel of 1 GB")
    say("writing a wheel of 1 GB")
    folder = bench.scratch / "large"
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    _write_wheel(wheels / f"{_NAME}-1.0-py3-none-any.whl")
    project = folder / "project"
    project.mkdir()
    (project / "main.py").write_text("print('large')\n")
    (project / "requirements.txt").write_text(f"{_NAME}==1.0\n")
    only = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    # A store of its own, so that the wheel goes with the rest of this.
    environment = {**bench.environment, **only, "TORCHSHIP_HOME": str(folder / "home")}
    try:
        output([TORCHSHIP, "lock", project], environment)
        return watch([TORCHSHIP, "build", project], environment)
    finally:
        shutil.rmtree(folder)


def _write_wheel(path: Path) -> None:
    """Write a wheel with two large members that do not compress: one stored, one deflated."""
    info = f"{_NAME}-1.0.dist-info"
    # longer than deflate's window of 32 KiB: repeated, it is as incompressible as all of it
    block = os.urandom(1 << 20)
    digest = hashlib.sha256()
    for _ in range(_MEMBER // len(block)):
        digest.update(block)
    shown = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
    record = ""
    members = {"stored.bin": zipfile.ZIP_STORED, "deflated.bin": zipfile.ZIP_DEFLATED}
    with zipfile.ZipFile(path, "w", compresslevel=0) as archive:
        for name, method in members.items():
            entry = zipfile.ZipInfo(f"{_NAME}/{name}", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = method
            with archive.open(entry, "w", force_zip64=True) as member:
                for _ in range(_MEMBER // len(block)):
                    member.write(block)
            record += f"{entry.filename},sha256={shown},{_MEMBER}\n"
        texts = {
            "METADATA": f"Metadata-Version: 2.1\nName: {_NAME}\nVersion: 1.0\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record += "".join(f"{info}/{name},,\n" for name in (*texts, "RECORD"))
        for name, text in {**texts, "RECORD": record}.items():
            archive.writestr(f"{info}/{name}", text)
