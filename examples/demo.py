"""The main job, end to end: lock, build and run examples/mnist for one epoch.

`make demo` runs this. It needs neither Docker nor root. Where the world has moved on it says
so and goes on: what no mirror or index serves any more is locked afresh beside the committed
lock; where no MNIST source answers, synthetic digits take its place, by that name.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from torchship import pipeline
from torchship.digest import Descriptor
from torchship.display import display
from torchship.engines.native import Native
from torchship.errors import DataUnavailable, FetchError, ResolveError, TorchshipError
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import Progress
from torchship.project import project as projects
from torchship.project.builds import AUTO
from torchship.project.lock import FILENAME
from torchship.project.project import Project

EXAMPLES = Path(__file__).resolve().parent
SCRATCH = EXAMPLES.parent / "build" / "demo"
TRAIN = ("python", "main.py", "--epochs", "1")


def main() -> int:
    """Return the exit status of the training."""
    store = Store.open()
    with display() as progress:
        try:
            name, image = build(EXAMPLES / "mnist", store, progress)
            train: tuple[str, ...] = TRAIN
        except DataUnavailable as error:
            progress.say(f"{error.message}.")
            progress.say("Training on synthetic digits instead, made on the spot: not MNIST.")
            name, image = build(synthetic(), store, progress)
            train = (*TRAIN, "--data", "digits")
        progress.say(f"{name} is {image.digest}")
        missing = Native(store).missing()
        if missing is not None:
            progress.say(f"the native engine cannot run here ({missing}): taking what can")
        run = ("run", "--engine", "native" if missing is None else "auto", name, "--", *train)
        progress.say(f"$ torchship {' '.join(run)}")
    torchship = Path(sys.executable).with_name("torchship")
    return subprocess.run([torchship, *run], check=False).returncode


def build(folder: Path, store: Store, progress: Progress) -> tuple[str, Descriptor]:
    """Build a project for this machine; return the image's name and descriptor."""
    project = projects.load(folder)
    name = f"{project.name}:demo"
    platforms = (Platform.host(),)
    path = folder / FILENAME
    if not path.exists() or Platform.host() not in project.platforms:
        path = SCRATCH / f"{project.name}.lock"
    progress.say(f"$ torchship build {folder.name} --lock {path.name}")
    pins = pipeline.locked(project, path, store=store, platforms=platforms, progress=progress)
    try:
        image = pipeline.build(
            project, pins, store=store, platforms=platforms, names=(name,), progress=progress
        )
    except DataUnavailable:
        raise
    except FetchError as aged:
        progress.say(f"{aged.message}.")
        image = build_afresh(project, name, store, progress)
    return name, image


def build_afresh(project: Project, name: str, store: Store, progress: Progress) -> Descriptor:
    """Lock what can be had here now, beside the committed lock, and build that."""
    path = SCRATCH / f"{project.name}.lock"
    progress.say(f"The committed lock does not fit this place any more; locking afresh in {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    platforms = (Platform.host(),)
    lock = partial(pipeline.lock, store=store, platforms=platforms, upgrade=True, progress=progress)
    try:
        pins = lock(project, path)
    except ResolveError as refused:
        if project.torch == (AUTO,):
            raise
        progress.say(f"{refused.message}.")
        progress.say("Taking whichever build of torch the index here has; that may be 3 GB.")
        project = replace(project, torch=(AUTO,))
        pins = lock(project, path)
    return pipeline.build(
        project, pins, store=store, platforms=platforms, names=(name,), progress=progress
    )


def synthetic() -> Path:
    """Make a project that trains the same program on digits drawn here; return its folder."""
    folder = SCRATCH / "synthetic-digits"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("main.py", "requirements.txt"):
        shutil.copyfile(EXAMPLES / "mnist" / name, folder / name)
    (folder / "pyproject.toml").write_text('[tool.torchship]\nname = "synthetic-digits"\n')
    subprocess.run(
        [sys.executable, EXAMPLES / "synthetic_digits.py", folder / "digits"], check=True
    )
    return folder


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TorchshipError as error:
        sys.exit(f"demo: {error.message}" + (f"\n      {error.hint}" if error.hint else ""))
