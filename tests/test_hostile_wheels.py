"""Wheels that lie, through whole builds: who publishes the wheel has written the lock as well.

What each lie is, and all the others, is told in `tests/layers/test_wheelzip.py`.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.layers.wheels import NAME, File, deflated, members, zipped
from tests.machine import debian_packages, equipped, layers, verify

from torchship.digest import Digest
from torchship.layers.wheelzip import SMALL
from torchship.project import lock as lockfile

__all__ = ["debian_packages"]

TEXT = b"A = 1\n" * 50
FALSE = {"crc32": 1}
SHORT = {"size": 5}
NOTHING = {"size": 10, "crc32": 0}

HONEST = [File(name="demo.py", content=TEXT)]
LIES = {
    "crc": ("'demo.py'", [File(name="demo.py", content=TEXT, local=FALSE, central=FALSE)]),
    "crc in one place": ("'demo.py'", [File(name="demo.py", content=TEXT, local=FALSE)]),
    "size": ("'demo.py'", [File(name="demo.py", content=TEXT, local=SHORT, central=SHORT)]),
    "size in one place": ("'demo.py'", [File(name="demo.py", content=TEXT, central=SHORT)]),
    "stream goes on": ("'demo.py'", [File(name="demo.py", stream=deflated(TEXT) + b"more")]),
    "overlap": (
        "'demo.py' overlaps",
        [*HONEST, File(name="b.py", content=TEXT, central={"offset": 0})],
    ),
    "gap": ("'demo.py'", [File(name="demo.py", content=TEXT, after=b"hidden")]),
    "duplicate": ("'demo.py'", [*HONEST, *HONEST]),
    "file and folder": ("demo.py", [*HONEST, File(name="demo.py/x", content=TEXT)]),
    "..": ("'../../escaped.py'", [File(name="../../escaped.py", content=TEXT)]),
    "absolute": ("'/etc/passwd'", [File(name="/etc/passwd", content=b"root::0:0:::\n")]),
    "symlink": ("'demo.py'", [File(name="demo.py", content=b"/etc/passwd", mode=0o120777)]),
    "bomb": ("zip bomb", [File(name="bomb.bin", content=bytes(2 * SMALL))]),
    "bomb that states little": (
        "'bomb.bin'",
        [File(name="bomb.bin", content=bytes(SMALL), local=NOTHING, central=NOTHING)],
    ),
}


@pytest.fixture(scope="module")
def locked(tmp_path_factory, debian_packages):
    """Give a machine, and a project whose lock pins an honest wheel."""
    machine = equipped(tmp_path_factory.mktemp("hostile"), debian_packages)
    (machine.shelf / NAME).write_bytes(zipped(*members(*HONEST)))
    project = machine.project(requirements__txt="demo\n")
    assert machine.torchship("lock", project).status == 0
    return machine, project


def publish(machine, project, wheel: bytes) -> None:
    """Put a wheel on the shelf in the honest one's place, and pin it."""
    (machine.shelf / NAME).write_bytes(wheel)
    path = project / lockfile.FILENAME
    lock = lockfile.load(path)
    (entry,) = lock.platforms
    (pin,) = entry.wheels
    pin = replace(pin, size=len(wheel), digest=Digest.of(wheel))
    lockfile.save(replace(lock, platforms=(replace(entry, wheels=(pin,)),)), path)


@pytest.mark.parametrize(("fault", "files"), LIES.values(), ids=LIES.keys())
def test_a_wheel_that_lies(locked, fault, files):
    """It stops the build by its name and its member's, and what the store has stays whole."""
    machine, project = locked
    before = machine.store.images()
    publish(machine, project, zipped(*members(*files)))
    machine.torchship("build", project).fails(NAME, fault)
    assert machine.store.images() == before
    verify(machine.home)


def test_an_honest_wheel_after_all(locked):
    """Nothing is left of the lies: the store builds what another one would."""
    machine, project = locked
    publish(machine, project, zipped(*members(*HONEST)))
    digest = machine.build(project)
    assert machine.with_store("fresh").build(project) == digest
    assert layers(machine, "project") == layers(machine.with_store("fresh"), "project")
    assert verify(machine.home)
