"""An image with CUDA: some 29 wheels, 3 GB. Its build, its layers, and what variants share.

The first build gets the files, 3 GB over the network unless `TORCHSHIP_MIRRORS` has them; what is
measured is another one with nothing but those. torch is the newest of the machine's own index;
where that one is no build for CUDA, all this is left out.
"""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Aim, Figure, Spread, below
from benchmarks.memory import AIM, Peak, watch
from benchmarks.sides import Failed, LeftOut, output, say
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import TORCHSHIP, Workbench
from torchship.platform import Platform
from torchship.project import builds
from torchship.project import lock as lockfile
from torchship.project.fetch.downloads import Downloads
from torchship.project.lock import PlatformLock

ROUNDS = 1
_ROOM = 15 << 30  # bytes: downloads, a store, and a store being made again
_MOST_LAYERS = 127
_LARGEST = 10_000  # MB: registries and Docker take no larger layer everywhere
_SMALL = 1 << 16  # bytes: a library below is a stub


def measure(bench: Workbench, tutorial: Tutorial, rounds: int) -> list[Figure]:  # noqa: ARG001
    """Build the image again and again with the same files, then look at it."""
    if shutil.disk_usage(bench.scratch).free < _ROOM:
        raise LeftOut("there is too little room for CUDA's libraries")
    folder = bench.scratch / "cuda"
    home, project = folder / "home", folder / "project"
    project.mkdir(parents=True)
    (project / "main.py").write_text("import torch\nprint(torch.__version__)\n")
    (project / "requirements.txt").write_text("torch\n")
    environment = {**bench.environment, "TORCHSHIP_HOME": str(home)}
    pins = _lock(project, environment)
    build = builds.of_torch(pins.wheels) or ""
    if builds.cuda(build) is None:
        raise LeftOut("the machine's index gives no build of torch for CUDA")
    say(f"getting the files of {pins.torch}, {len(pins.wheels)} wheels, and building it once")
    output([TORCHSHIP, "build", project], environment)
    taken, peaks = [], []
    for _ in range(rounds):
        _forget(home)
        began = time.monotonic()
        peaks.append(watch([TORCHSHIP, "build", project], environment))
        taken.append(time.monotonic() - began)
        say(f"  {taken[-1]:.1f} s, {peaks[-1]}")
    [image] = _built(project, environment)
    name = f"{pins.torch}, {len(pins.wheels)} wheels"
    return [
        *_of_builds(name, taken, peaks),
        *_of_layers(image["layers"]),
        _twice(pins, Downloads(home / "downloads")),
        *_variants(bench, project, build, environment),
    ]


def _lock(project: Path, environment: dict[str, str]) -> PlatformLock:
    output([TORCHSHIP, "lock", project], environment)
    return lockfile.load(project / lockfile.FILENAME).platform(Platform.host())


def _forget(home: Path) -> None:
    for entry in home.iterdir():
        if entry.name != "downloads":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _built(project: Path, environment: dict[str, str]) -> list[dict[str, list[dict[str, int]]]]:
    """Return what `inspect` tells of each image that the project's name holds."""
    shown = output([TORCHSHIP, "inspect", project.name, "--json"], environment)
    found: list[dict[str, list[dict[str, int]]]] = json.loads(shown)
    return found


def _of_builds(name: str, taken: Sequence[float], peaks: Sequence[Peak]) -> list[Figure]:
    together = Spread(values=tuple(peak.together for peak in peaks), unit="MB")
    largest = Spread(values=tuple(peak.largest for peak in peaks), unit="MB")
    seconds = Spread(values=tuple(taken), unit="s")
    return [
        Figure(what=f"cold build of a CUDA image: {name}", mine=seconds),
        Figure(what="· its peak memory", mine=together, aim=below(AIM, together)),
        Figure(what="· its largest process", mine=largest),
    ]


def _of_layers(layers: Sequence[dict[str, int]]) -> list[Figure]:
    sizes = [layer["size"] / 1e6 for layer in layers]
    number = Spread(values=(len(sizes),), unit="layers")
    largest = Spread(values=(max(sizes),), unit="MB")
    return [
        Figure(what="· size, compressed", mine=Spread(values=(sum(sizes),), unit="MB")),
        Figure(what="· layers", verdict=str(len(sizes)), aim=below(_MOST_LAYERS, number)),
        Figure(what="· the largest layer", mine=largest, aim=below(_LARGEST, largest)),
    ]


def _twice(pins: PlatformLock, downloads: Downloads) -> Figure:
    """Count shared libraries of the same bytes in two wheels, or of one path."""
    holders: dict[tuple[int, int], set[str]] = defaultdict(set)
    for pin in pins.wheels:
        with zipfile.ZipFile(downloads.place(pin.digest, pin.filename)) as wheel:
            for member in wheel.infolist():
                library = ".so" in Path(member.filename).name
                if library and member.file_size >= _SMALL:
                    holders[member.CRC, member.file_size].add(pin.name)
    twice = sum(len(names) > 1 for names in holders.values())
    return Figure(
        what=f"· of {len(holders)} shared libraries, in two wheels",
        verdict=str(twice or "none"),
        aim=Aim(text="none", reached=not twice),
    )


def _variants(
    bench: Workbench, project: Path, build: str, environment: dict[str, str]
) -> list[Figure]:
    """Build one index with the CPU's image and this one, and compare their layers."""
    settings = f'[tool.torchship]\ntorch = ["cpu", "{build}"]\n'
    (project / "pyproject.toml").write_text(settings)
    try:
        output([TORCHSHIP, "build", project], environment)
    except Failed as why:
        reason = str(why).strip().splitlines()[-1]
        bench.leave_out("cuda: variants", LeftOut(f"there is no build for the CPU: {reason}"))
        return []
    images = _built(project, environment)
    cpu, cuda = ({each["digest"]: each["size"] for each in image["layers"]} for image in images)
    both = cpu.keys() & cuda.keys()
    words = [
        ("that variants for the CPU and for CUDA share", both, cpu),
        ("of the CPU's alone", cpu.keys() - both, cpu),
        ("of CUDA's alone", cuda.keys() - both, cuda),
    ]
    return [
        Figure(
            what=f"· {len(names)} layers {what}",
            mine=Spread(values=(sum(sizes[name] for name in names) / 1e6,), unit="MB"),
        )
        for what, names, sizes in words
    ]
