"""Bytecode for Pythons before 3.11, made by those themselves."""

from __future__ import annotations

import subprocess
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests import pythons

from torchship.digest import Digest
from torchship.layers import compile_script
from torchship.layers.bytecode import BytecodeRecipe
from torchship.layers.layer import key
from torchship.project.lock import WheelPin

LAYERS = Path(compile_script.__file__).parent
GUARDED = """
from typing import TYPE_CHECKING
import typing
if TYPE_CHECKING:
    from . import typed
from . import first
if typing.TYPE_CHECKING:
    from . import typed
else:
    from . import second
def f():
    from . import late
from . import third
"""
SETS = """
X = object() in {None, ..., "a", "b", ("c", None), 2.5, b"d"}
def f(x):
    return x in {"e", "f", None, "g"} or x in {1, 2, 3}
"""
SAME = """
import marshal, sys
code = compile(sys.argv[1], sys.argv[2], "exec", dont_inherit=True)
assert marshal.loads(sys.stdin.buffer.read()[16:]) == code
"""
ALL = """
import marshal, os, pathlib, sys, types, warnings
sys.path.insert(0, sys.argv[1])
from compile_older import written
def sets(constant):
    if isinstance(constant, types.CodeType):
        return any(map(sets, constant.co_consts))
    return isinstance(constant, (frozenset, tuple)) and "frozenset" in repr(constant)
warnings.simplefilter("ignore")
count = 0
for path in sorted(pathlib.Path(os.__file__).parent.glob("*.py")):
    code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    assert marshal.loads(written(code)) == code, path
    if not sets(code):
        count += 1
        assert written(code) == marshal.dumps(code, 2), path
assert count > 100
"""


@dataclass
class Older:
    """A Python of before 3.11, started as the image's would be, with a seed of its own."""

    program: str
    seed: str = "0"

    @property
    def version(self) -> str:
        """The full one."""
        return self.python("import platform as p; print(p.python_version())").decode().strip()

    @property
    def package(self) -> str:
        """The folder that its image has the package `pkg` in."""
        return f"opt/venv/lib/python{self.version.rpartition('.')[0]}/site-packages/pkg"

    def python(self, program: str, *arguments: str, given: bytes = b"") -> bytes:
        """Run a program; return what it printed."""
        command = [self.program, "-Bc", program, *arguments]
        return subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True).stdout

    def run(self, script, arguments):
        """Run a script."""
        subprocess.run(
            [self.program, "-s", "-S", str(script), *arguments],
            check=True,
            env={"PYTHONHASHSEED": self.seed},
        )


@pytest.fixture(params=[9, 10], ids=["3.9", "3.10"])
def older(request) -> Older:
    """Give such a Python, where this machine has one."""
    return Older(pythons.python(request.param))


@pytest.fixture
def compiled(cook, tmp_path):
    """Return a function that compiles a package of sources."""

    def compile_package(python, sources):
        path = tmp_path / "pkg-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for member, text in sources.items():
                archive.writestr(zipfile.ZipInfo(f"pkg/{member}"), text)
        digest, size = Digest.of_file(path), path.stat().st_size
        pin = WheelPin(name="pkg", version="1.0", filename=path.name, size=size, digest=digest)
        recipe = BytecodeRecipe(wheels=(pin,), prune=(), python=python.version)
        return cook(recipe, {digest: path}, python)

    return compile_package


def test_what_comes_after_a_block_for_type_checkers_is_followed(compiled, older):
    """The jumps of these Pythons name places, not distances."""
    modules = ("typed", "first", "second", "late", "third")
    made = compiled(older, {"__init__.py": GUARDED, **{f"{name}.py": "" for name in modules}})
    names = {Path(name).name.partition(".")[0] for name in made.names}
    assert names == {"__init__", "first", "second", "third"}


def test_the_bytes_are_the_same_each_time(compiled, older):
    """Sets are sorted, also where no seed fixes the hashes of what is in them."""
    seeds = ("0", "1", "31337", "random", "random")
    made = [compiled(replace(older, seed=seed), {"__init__.py": SETS}) for seed in seeds]
    assert len({each.data for each in made}) == 1
    data = made[0].read(made[0].names[0])
    older.python(SAME, SETS, f"/{older.package}/__init__.py", given=data)


def test_what_is_written_is_what_marshal_writes(older):
    """Of all the standard library, but for the order of sets."""
    older.python(ALL, str(LAYERS))


def test_layers_for_newer_pythons_are_named_after_their_own_script_alone():
    """What changes for older ones gives no image of newer ones another digest."""
    recipes = {
        python: BytecodeRecipe(wheels=(), prune=(), python=python)
        for python in ("3.10.13", "3.11.2")
    }
    script = str(Digest.of_file(LAYERS / "compile_script.py"))
    assert recipes["3.11.2"].inputs["script"] == script
    assert script in str(recipes["3.10.13"].inputs["script"])
    assert str(Digest.of_file(LAYERS / "compile_older.py")) in str(
        recipes["3.10.13"].inputs["script"]
    )
    assert key(recipes["3.10.13"]) != key(recipes["3.11.2"])
