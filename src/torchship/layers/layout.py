"""Where things are in every image, and the layer that holds the skeleton of it.

One prefix and one working directory on every base: a wheel's layer depends on nothing of
the base but its Python's minor version, and is shared by all the images that hold the wheel.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from torchship.digest import Digest
from torchship.layers.archive import Archive, Entry, Kind
from torchship.layers.layer import Materials
from torchship.project.project import minor

VENV = "/opt/venv"
WORKDIR = "/workspace"
OUTPUT = "/output"
HOME = "/home/user"
USER = "user"
UID = GID = 1000
PATH = f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

OWNED = (HOME, OUTPUT, WORKDIR)
"""The directories, sorted, that belong to the run user, with all that is in them."""

DATA = "/data"
"""Where ``../data`` leads from the working directory: torchvision's examples download to it."""


def site_packages(python: str) -> str:
    """Return the image's site-packages for a Python version, as a path of an archive."""
    return f"{VENV[1:]}/lib/python{minor(python)}/site-packages"


def owner(path: str) -> int:
    """Return the uid, which is the gid too, that a path (absolute or an archive's) has."""
    inside = "/" + path.strip("/") + "/"
    return UID if any(inside.startswith(f"{top}/") for top in OWNED) else 0


def add_parents(archive: Archive, path: str) -> None:
    """Add the directories above an archive's path, each with the owner that it has here.

    A layer that names a directory again overrides its mode and owner in the layers below, so
    every layer must say the same of it.
    """
    parts = path.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        parent = "/".join(parts[:depth])
        if parent not in archive:
            uid = owner(parent)
            archive.add(Entry(path=parent, kind=Kind.DIRECTORY, mode=0o755, uid=uid, gid=uid))


class LayoutRecipe(Struct, frozen=True, kw_only=True):
    """The skeleton: the virtual environment, the working, output and home directories.

    ``python`` is the base's full version; ``interpreter`` its absolute path in the image.
    ``further`` are directories that the run user owns besides, where nothing is baked in.
    """

    python: str
    interpreter: str = ""
    further: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What the layer holds, for people."""
        return f"{VENV} and {WORKDIR}"

    @property
    def origin(self) -> Mapping[str, str]:
        """Nothing came from elsewhere."""
        return {}

    @property
    def inputs(self) -> Mapping[str, object]:
        """All that the bytes depend on."""
        found = {"python": self.python, "interpreter": self._interpreter}
        return found | ({"further": self.further} if self.further else {})

    @property
    def needs(self) -> tuple[Digest, ...]:
        """No files."""
        return ()

    @property
    def _interpreter(self) -> str:
        return self.interpreter or f"/usr/bin/python{minor(self.python)}"

    def write(self, archive: Archive, materials: Materials) -> None:  # noqa: ARG002 (the protocol's)
        """Write the tree that ``python -m venv`` makes (PEP 405), and the user's directories."""
        for path in sorted((*OWNED, *self.further)):
            inside = path[1:]
            add_parents(archive, inside)
            archive.add(Entry(path=inside, kind=Kind.DIRECTORY, mode=0o755, uid=UID, gid=GID))
        venv = VENV[1:]
        version = minor(self.python)
        # PEP 405: "home" tells the interpreter in bin where its standard library is.
        settings = (
            f"home = {self._interpreter.rpartition('/')[0]}\n"
            "include-system-site-packages = false\n"
            f"version = {self.python}\n"
            f"executable = {self._interpreter}\n"
        ).encode()
        _link(archive, f"{venv}/bin/python", self._interpreter)
        _link(archive, f"{venv}/bin/python3", "python")
        _link(archive, f"{venv}/bin/python{version}", "python")
        archive.add(Entry(path=site_packages(self.python), kind=Kind.DIRECTORY, mode=0o755))
        _link(archive, f"{venv}/lib64", "lib")
        archive.add(Entry(path=f"{venv}/pyvenv.cfg", size=len(settings)), [settings])


def _link(archive: Archive, path: str, target: str) -> None:
    archive.add(Entry(path=path, kind=Kind.SYMLINK, mode=0o777, target=target))
