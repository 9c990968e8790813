"""An image on its way out to a registry, after an edit.

The registry is Debian's `docker-registry` on a loopback port. Three Docker sides stand against
torchship: the tutorial's Dockerfile, the best one (examples/mnist/Dockerfile, dependencies before
code) with all steps cached, and the best one where nothing is. Docker keeps its base image all the
time, and has its wheels from an index on a loopback port. torchship's machine that has nothing
starts with an empty TORCHSHIP_HOME: no layers and no downloads.

What moves over the loopback, in either direction, is counted too.
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.registry import RunningRegistry, running

from benchmarks.figures import Figure, Spread, at_least, ratio
from benchmarks.sides import Failed, LeftOut, Side, in_turns, output, say, seconds
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import TORCHSHIP, Workbench
from torchship.amounts import counted

ROUNDS = 5
_SLOW_ROUNDS = 2
STEP = (
    "import torch; layer = torch.nn.Linear(8, 2); "
    "layer(torch.randn(4, 8)).sum().backward(); print(layer.weight.grad.norm().item())"
)
"""A first training step, which needs all of torch and no data."""


FREED = 65
"""Seconds: ext4 looks past inodes that were freed within a minute, at the cost of those who make
files meanwhile (fs/ext4/ialloc.c, recently_deleted). A machine that had nothing freed nothing."""


def measure(bench: Workbench, tutorial: Tutorial, rounds: int) -> list[Figure]:
    """Edit and publish, with and without anything local."""
    ours, theirs = publishers(bench, tutorial)
    slow = min(rounds, _SLOW_ROUNDS)
    return [
        *_publish(ours, theirs, rounds, slow),
        *_from_nothing(ours, theirs, slow),
    ]


def publishers(bench: Workbench, tutorial: Tutorial) -> tuple[Ours, Theirs]:
    """Return both sides, with a registry of their own between them and the machines."""
    tutorial.prepare()
    folder = Path(tempfile.mkdtemp(dir=bench.scratch, prefix="registry-"))
    try:
        registry = bench.stack.enter_context(running(folder))
    except (pytest.skip.Exception, pytest.fail.Exception) as why:
        raise LeftOut(str(why)) from None
    return Ours(bench, registry), Theirs(tutorial, registry)


class Ours:
    """torchship's side: a project that is edited, a tag that moves with it."""

    def __init__(self, bench: Workbench, registry: RunningRegistry) -> None:
        self._bench = bench
        self._folder = Path(tempfile.mkdtemp(dir=bench.scratch, prefix="shared-"))
        shutil.copytree(bench.project, self._folder, dirs_exist_ok=True)
        self.name = f"{registry.host}/bench/ours:latest"
        self._numbers = itertools.count()
        self.publish()

    def publish(self) -> float:
        """Edit a line, build and push; return the seconds."""
        return self._publish(self._bench.environment)

    def publish_from_nothing(self) -> float:
        """Do that with an empty store: what did not change is known from the published tag."""
        return self._publish(self._nothing())

    def first_step(self) -> float:
        """Fetch the image and run a training step, with nothing of it here before."""
        folder = self._bench.scratch / f"first-{next(self._numbers)}"  # kept: see FREED
        run = [TORCHSHIP, "run", "--engine", "native", "-o", folder / "run", self.name]
        environment = {**self._bench.environment, "TORCHSHIP_HOME": str(folder / "home")}
        return seconds([*run, "--", "python", "-c", STEP], environment)

    def _publish(self, environment: dict[str, str]) -> float:
        _edit(self._folder, next(self._numbers))
        return seconds([TORCHSHIP, "build", self._folder, "-t", self.name, "--push"], environment)

    def _nothing(self) -> dict[str, str]:
        home = self._bench.scratch / "nothing"
        shutil.rmtree(home, ignore_errors=True)
        os.sync()
        return {**self._bench.environment, "TORCHSHIP_HOME": str(home)}


class Theirs:
    """Docker's side: the tutorial's Dockerfile and the best one."""

    def __init__(self, tutorial: Tutorial, registry: RunningRegistry) -> None:
        self._tutorial = tutorial
        self._engine = tutorial.engine
        self.name = f"{registry.host}/bench/theirs:latest"
        self._numbers = itertools.count()

    def tutorial(self) -> float:
        """Edit a line; `docker build` and `docker push` of the tutorial's Dockerfile."""
        # COPY comes first there: an edit installs everything again.
        return self._publish(self._tutorial.folder, "build")

    def best(self) -> float:
        """Do that with the best Dockerfile, every step but the last one cached."""
        return self._publish(self._tutorial.best, "build")

    def best_buildkit(self) -> float:
        """Do that with BuildKit."""
        return self._publish(self._tutorial.best, "build", buildkit=True)

    def best_from_nothing(self) -> float:
        """Do that with no step cached, as on a machine that never built it."""
        return self._publish(self._tutorial.best, "build", "--no-cache")

    def first_step(self, name: str) -> float:
        """`docker pull` and `docker run`, with nothing of the image here before."""
        self._forget()
        time.sleep(FREED)
        pull = self._docker("pull", name)
        return pull + self._docker("run", "--rm", "--network=none", name, "python", "-c", STEP)

    def _forget(self) -> None:
        while held := self._images():
            # in whatever order the Engine takes them, one that others stand on stays
            output(
                [self._engine.client, "system", "prune", "--all", "--force"], self._environment()
            )
            if self._images() == held:
                raise Failed(f"docker keeps {counted(len(held), 'image')} that nothing uses")
        os.sync()

    def _images(self) -> list[str]:
        listed = [self._engine.client, "images", "--all", "--quiet"]
        return output(listed, self._environment()).split()

    def _publish(self, folder: Path, *build: str, buildkit: bool = False) -> float:
        _edit(folder, next(self._numbers))
        arguments = ("--network=host", "--build-arg=BASE=base", f"--tag={self.name}", folder)
        built = self._docker(*build, *arguments, buildkit=buildkit)
        return built + self._docker("push", self.name)

    def _docker(self, *arguments: str | Path, buildkit: bool = False) -> float:
        return seconds([self._engine.client, *arguments], self._environment(buildkit=buildkit))

    def _environment(self, *, buildkit: bool = False) -> dict[str, str]:
        return {**self._engine.environment, "DOCKER_BUILDKIT": str(int(buildkit))}


def _publish(ours: Ours, theirs: Theirs, rounds: int, slow: int) -> list[Figure]:
    """Measure an edit until it is in the registry, where everything else is known here."""
    for warm in (ours.publish, theirs.best, theirs.best_buildkit):
        warm()
    sides: dict[str, Side] = {
        "torchship": ours.publish,
        "best": theirs.best,
        "best, BuildKit": theirs.best_buildkit,
    }
    taken = in_turns(rounds, sides)
    mine = Spread(values=taken["torchship"], unit="s")
    quickest = min(list(sides)[1:], key=lambda name: statistics.median(taken[name]))
    best = Spread(values=taken[quickest], unit="s")
    again = in_turns(slow, {"torchship": ours.publish, "tutorial": theirs.tutorial})
    mine_again, tutorial = (Spread(values=values, unit="s") for values in again.values())
    moved, moved_best = _moved(ours.publish), _moved(theirs.best)
    moved_tutorial = _moved(theirs.tutorial)
    slower = ratio(mine_again, tutorial)
    faster = ratio(mine, best)
    return [
        Figure(
            what="an edited line, built and pushed",
            mine=mine_again,
            against="`docker build` and `docker push`, tutorial",
            theirs=tutorial,
            outcome=slower,
            aim=at_least(300, slower),
        ),
        Figure(
            what="the same, everything cached",
            mine=mine,
            against=f"the best Dockerfile{', BuildKit' if 'BuildKit' in quickest else ''}",
            theirs=best,
            outcome=faster,
            aim=at_least(2, faster),
        ),
        _bytes("bytes for it", moved, "tutorial", moved_tutorial),
        _bytes("bytes for it, everything cached", moved, "the best Dockerfile", moved_best),
    ]


def _from_nothing(ours: Ours, theirs: Theirs, rounds: int) -> list[Figure]:
    """Measure the same with nothing local, but the previous tag in the registry."""
    sides: dict[str, Side] = {
        "torchship": ours.publish_from_nothing,
        "best": theirs.best_from_nothing,
    }
    taken = in_turns(rounds, sides)
    mine, best = (Spread(values=values, unit="s") for values in taken.values())
    faster = ratio(mine, best)
    moved = _moved(ours.publish_from_nothing)
    return [
        Figure(
            what="the same from an empty store, the previous tag in the registry",
            mine=mine,
            against="the best Dockerfile, nothing cached but its base",
            theirs=best,
            outcome=faster,
            aim=at_least(50, faster),
        ),
        _bytes("bytes for it", moved, "the best Dockerfile", _moved(theirs.best_from_nothing)),
    ]


def _edit(folder: Path, number: int) -> None:
    main = folder / "main.py"
    text = main.read_text().partition("\n# edit ")[0].rstrip("\n")
    main.write_text(f"{text}\n# edit {number} of {os.getpid()}\n")


def _moved(side: Callable[[], float]) -> float:
    """Return the megabytes that a side moves over the loopback."""
    before = _loopback()
    side()
    return (_loopback() - before) / 1e6


def _loopback() -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    say("there is no loopback to count at")
    return 0


def _bytes(what: str, mine: float, against: str, theirs: float) -> Figure:
    ours, other = Spread(values=(mine,), unit="MB"), Spread(values=(theirs,), unit="MB")
    return Figure(
        what=f"· {what}", mine=ours, against=against, theirs=other, outcome=ratio(ours, other)
    )
