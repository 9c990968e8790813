"""A machine of a test's own, and `torchship` on it as users start it: a process by itself.

It has a HOME, a store, a folder of wheels and a Debian mirror; what it needs it finds there, so
that nothing here reaches a network. The mirror's packages have the names of the real ones, and
hold next to nothing: images of them can be built and looked at, and not run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.project.debian import DebianMirror
from tests.wheels import make_wheel

from torchship.digest import Digest
from torchship.oci.store import Store
from torchship.project.apt import BASE_PACKAGES

TORCHSHIP = (sys.executable, "-m", "torchship")
PYTHON_VERSION = "3.11.2-6+deb12u6"
PLAIN = 'bytecode = "none"\n'


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command gave."""

    status: int
    out: str
    err: str

    @property
    def digest(self) -> str:
        """The digest that a build printed."""
        assert self.status == 0, self.err
        digest = self.out.strip()
        assert digest.startswith("sha256:"), self.out
        return digest

    def fails(self, *words: str, status: int = 1) -> str:
        """Check that the command failed, and said so with these words; return what it said."""
        assert self.status == status, f"{self.status}: {self.out}{self.err}"
        assert self.err.count("torchship: ") == 1, self.err
        for word in words:
            assert word in self.err
        return self.err


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One machine; `torchship` runs in its environment, which has nothing of the user's."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str | Path] = TORCHSHIP

    @property
    def home(self) -> Path:
        """The store's folder."""
        return Path(self.environment["TORCHSHIP_HOME"])

    @property
    def shelf(self) -> Path:
        """The folder of wheels that is all that uv looks at."""
        return self.root / "shelf"

    @property
    def store(self) -> Store:
        """The store, to look into."""
        return Store.open(self.home)

    def with_environment(self, **changes: str | Path | None) -> Machine:
        """Return the machine with other variables; None takes one away."""
        changed = {name: str(value) for name, value in changes.items() if value is not None}
        kept = {name: text for name, text in self.environment.items() if name not in changes}
        return replace(self, environment=kept | changed)

    def with_store(self, name: str) -> Machine:
        """Return the machine with another store, which is empty."""
        return self.with_environment(TORCHSHIP_HOME=self.root / name)

    def start(self, *arguments: str | Path, **more) -> subprocess.Popen[str]:
        """Start torchship."""
        return subprocess.Popen(
            [str(word) for word in (*self.program, *arguments)],
            **{
                "env": dict(self.environment),
                "cwd": self.root,
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **more,
            },
        )

    def torchship(self, *arguments: str | Path, **more) -> Answer:
        """Run torchship to its end. Whatever happens, it never shows a traceback."""
        process = self.start(*arguments, **more)
        try:
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
        assert "Traceback" not in err, err
        return Answer(status=process.returncode, out=out or "", err=err or "")

    def build(self, *arguments: str | Path, **more) -> str:
        """Build a project; return the image's digest."""
        return self.torchship("build", *arguments, **more).digest

    def project(
        self, name: str = "project", *, settings: str = PLAIN, **files: str | bytes
    ) -> Path:
        """Write a project with a main.py; ``requirements__txt="..."`` is a file of it.

        Its settings leave bytecode out, which only a machine with that very Python can make
        for a base that holds nothing; with ``settings=""`` there is no table at all.
        """
        root = self.root / name
        root.mkdir(parents=True, exist_ok=True)
        contents: dict[str, str | bytes] = {"main.py": "print('hello')\n"}
        contents |= {file.replace("__", "."): text for file, text in files.items()}
        if settings:
            contents["pyproject.toml"] = f"[tool.torchship]\n{settings}"
        for file, text in contents.items():
            data = text.encode() if isinstance(text, str) else text
            (root / file).write_bytes(data)
        return root

    def wheel(self, name: str, version: str = "1.0", *arguments, **options) -> Path:
        """Put a wheel on the shelf."""
        return make_wheel(self.shelf, name, version, *arguments, **options)


def sealed(root: Path) -> Machine:
    """Return a machine without a single setting of the user's, with an empty shelf."""
    for folder in ("home", "shelf", "tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return Machine(
        root=root,
        environment={
            **kept,
            "HOME": str(root / "home"),
            "TMPDIR": str(root / "tmp"),
            "XDG_CONFIG_DIRS": str(root / "xdg"),
            "TORCHSHIP_HOME": str(root / "store"),
            "TORCHSHIP_ENGINE": "native",  # whatever else this machine has
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(root / "shelf"),
            "UV_CACHE_DIR": str(root / "uv"),
        },
    )


@pytest.fixture(scope="session")
def debian_packages(tmp_path_factory) -> DebianMirror:
    """Make a mirror of small packages with the names that a base needs, for all platforms."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"this machine has no {tool}")
    mirror = DebianMirror(tmp_path_factory.mktemp("debian") / "mirror")
    for name in (*BASE_PACKAGES, "python3.11"):
        depends = "python3.11" if name == "python3" else ""
        mirror.add(name, PYTHON_VERSION if name == "python3.11" else "1.0", depends=depends)
    mirror.publish()
    return mirror


@pytest.fixture
def machine(tmp_path: Path, debian_packages: DebianMirror) -> Machine:
    """Give a machine that can lock and build, and reaches no network."""
    return equipped(tmp_path, debian_packages)


def equipped(root: Path, mirror: DebianMirror) -> Machine:
    """Return such a machine; `leaf`, and `other`, which needs it, are on its shelf."""
    found = sealed(root)
    found.wheel("leaf", "1.0")
    found.wheel("other", "1.0", requires=["leaf"])
    return found.with_environment(TORCHSHIP_DEBIAN_MIRROR=mirror.root, TORCHSHIP_DEBIAN_TRUSTED="1")


def verify(home: Path) -> int:
    """Check that every blob of a store has its digest; return how many there are."""
    blobs = [path for path in (home / "oci" / "blobs" / "sha256").glob("*") if path.is_file()]
    for path in blobs:
        assert Digest.of_file(path).hex == path.name
    return len(blobs)


def layers(machine: Machine, reference: str) -> list[dict[str, object]]:
    """Return what `inspect` says of the layers of an image for one platform."""
    (image,) = json.loads(machine.torchship("inspect", reference, "--json").out)
    return image["layers"]
