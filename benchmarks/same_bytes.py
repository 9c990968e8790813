"""The same project, built where everything differs that must not matter: one digest.

Another home, path, user's mask, locale, time zone and clock setting, hash seed, and, where
this machine has them, other versions of Python. Each build starts from an empty store.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.figures import Aim, Figure
from benchmarks.sides import Failed, LeftOut, output, say
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import PIP, ROOT, TORCHSHIP, Workbench

ROUNDS = 1
_OTHERS = ("3.12", "3.13", "3.14")
_ODD = {
    "TZ": "Asia/Kathmandu",
    "LC_ALL": "C",
    "LANG": "tr_TR.UTF-8",
    "PYTHONHASHSEED": "4242",
    "COLUMNS": "40",
}


def measure(bench: Workbench, tutorial: Tutorial, rounds: int) -> list[Figure]:  # noqa: ARG001
    """Build the project in each setting, and compare the digests."""
    assert bench.project
    bench.forget()
    digests = {"here": bench.image()}
    digests["elsewhere"] = _elsewhere(bench, TORCHSHIP, "else where/ö")
    for version in _OTHERS:
        try:
            program = _installed(bench, version)
            digests[f"Python {version}"] = _elsewhere(bench, program, version)
        except LeftOut as why:
            bench.leave_out(f"same_bytes: Python {version}", why)
    for name, digest in digests.items():
        say(f"  {name}: {digest}")
    same = len(set(digests.values())) == 1
    return [
        Figure(
            what="digests of builds: " + ", ".join(digests),
            verdict=f"identical: {'yes' if same else 'no'}",
            aim=Aim(text="one digest", reached=same),
        )
    ]


def _elsewhere(bench: Workbench, program: Path, name: str) -> str:
    """Build a copy of the project with another environment; return the image's digest."""
    place = bench.scratch / "elsewhere" / name
    folder = place / "project"
    shutil.copytree(bench.project, folder)
    for path in _files(folder):  # a copy has other times; give it other modes too
        path.chmod(0o600)
    home = place / "home"
    downloads = home / "store" / "downloads"
    # Hard links: the files' times of change are other, so they are hashed again, as copies are.
    shutil.copytree(bench.home / "downloads", downloads, copy_function=os.link)
    environment: Mapping[str, str] = {
        **bench.environment,
        **_ODD,
        "HOME": str(home),
        "TORCHSHIP_HOME": str(home / "store"),
    }
    done = subprocess.run(
        [program, "build", folder],
        env=environment,
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(place)
    if done.returncode:
        raise Failed(done.stderr[-1500:].strip())
    return done.stdout.strip()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _installed(bench: Workbench, version: str) -> Path:
    """Install torchship for another Python; return its program."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        raise LeftOut("it is the Python that runs all of this")
    python = _python(version)
    folder = bench.scratch / f"python{version}"
    say(f"installing torchship for {python}")
    output([python, "-m", "venv", "--without-pip", folder])
    pip = [*PIP, "--python", folder / "bin" / "python", "install", "--quiet"]
    try:
        output([*pip, ROOT])
    except Failed as why:
        raise LeftOut(f"torchship could not be installed for it: {why}") from None
    return folder / "bin" / "torchship"


def _python(version: str) -> Path:
    managed = Path.home() / ".pyenv" / "versions"
    found = sorted(managed.glob(f"{version}.*/bin/python")) if managed.is_dir() else []
    named = shutil.which(f"python{version}")
    for candidate in (*found, *([Path(named)] if named else ())):
        try:
            output([candidate, "-c", f"import sys; assert sys.version.startswith('{version}.')"])
        except (Failed, OSError):  # a shim that only says that it is not there
            continue
        return candidate
    raise LeftOut("this machine has none")
