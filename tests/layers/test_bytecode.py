"""Bytecode layers."""

import importlib.util
import marshal
import platform
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from torchship.digest import Digest
from torchship.errors import EngineError
from torchship.layers.bytecode import BytecodeRecipe, DebianBytecodeRecipe
from torchship.layers.layer import key
from torchship.project.lock import WheelPin

SITE = "opt/venv/lib/python{}.{}/site-packages".format(*sys.version_info[:2])
TAG = sys.implementation.cache_tag

SOURCES = {
    "pkg/__init__.py": "from . import used\nfrom .sub.deep import x\nclass C:\n  import pkg.body\n",
    "pkg/used.py": "import os, other\nS = frozenset({'a','b','c'})\ndef f():\n  import pkg.late\n",
    "pkg/body.py": "",
    "pkg/late.py": "",
    "pkg/never.py": "",
    "pkg/sub/__init__.py": "",
    "pkg/sub/deep.py": "from .. import cousin\nx = 1\n",
    "pkg/cousin.py": "",
    "pkg/test/skipped.py": "",
    "pkg/broken.py": "print 'Python 2'\n",
    "single.py": "import pkg.broken\n",
    "space/inner/__init__.py": "",
    "pkg-1.0.data/purelib/spread/__init__.py": "",
    "pkg-1.0.data/scripts/tool.py": "",
    "pkg/data.txt": "no source",
}
IMPORTED = [
    "pkg/__init__", "pkg/body", "pkg/cousin", "pkg/sub/__init__", "pkg/sub/deep", "pkg/used",
    "single", "space/inner/__init__", "spread/__init__",
]  # fmt: skip


@pytest.fixture
def wheel(tmp_path):
    """Return a function that makes a wheel of sources: its pin, and the files by digest."""

    def make(sources=SOURCES, name="pkg"):
        path = tmp_path / f"{name}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, text in sources.items():
                archive.writestr(zipfile.ZipInfo(member), text)
        digest = Digest.of_file(path)
        size = path.stat().st_size
        pin = WheelPin(name=name, version="1.0", filename=path.name, size=size, digest=digest)
        return pin, {digest: path}

    return make


def recipe(*pins, mode="imported", prune=()):
    """Return a recipe for the Python that runs the tests."""
    return BytecodeRecipe(wheels=pins, prune=prune, python=platform.python_version(), mode=mode)


def compiled(made):
    """Return the paths below site-packages of what was compiled, without cache and suffix."""
    names = [name.removeprefix(f"{SITE}/") for name in made.names]
    assert all(name.endswith(f".{TAG}.pyc") for name in names)
    return sorted(name.replace("__pycache__/", "").removesuffix(f".{TAG}.pyc") for name in names)


def test_what_importing_loads_is_compiled(cook, wheel, this_python):
    """Imports of modules and class bodies are followed; those inside functions wait."""
    pin, files = wheel()
    assert compiled(cook(recipe(pin), files, this_python)) == IMPORTED


def test_all_is_all_that_compiles(cook, wheel, this_python):
    """Mode all takes every source of site-packages but what Python cannot compile."""
    pin, files = wheel()
    found = compiled(cook(recipe(pin, mode="all"), files, this_python))
    assert found == sorted([*IMPORTED, "pkg/late", "pkg/never", "pkg/test/skipped"])


def test_none_is_nothing(cook, wheel, this_python):
    """Mode none leaves the layer empty."""
    pin, files = wheel()
    assert cook(recipe(pin, mode="none"), files, this_python).names == []


def test_what_is_pruned_is_not_compiled(cook, wheel, this_python):
    """Bytecode without its source would be dead weight."""
    pin, files = wheel()
    made = cook(recipe(pin, mode="all", prune=("pkg/test/",)), files, this_python)
    assert "pkg/test/skipped" not in compiled(made)


def test_imports_lead_from_wheel_to_wheel(cook, wheel, this_python):
    """A module that another wheel imports is compiled with it."""
    first, files = wheel({"a/__init__.py": "import b.c\n"}, "a")
    second, more = wheel({"b/__init__.py": "", "b/c.py": "", "b/d.py": ""}, "b")
    assert compiled(cook(recipe(first, second), files | more, this_python)) == [
        "a/__init__",
        "b/__init__",
        "b/c",
    ]


def test_two_builds_give_the_same_bytes(cook, wheel, this_python, tmp_path):
    """Neither the order of sets nor that of the processors reaches the layer."""
    pin, files = wheel()

    class Seeded:
        def __init__(self, seed):
            self.seed = seed

        def run(self, script, arguments):
            subprocess.run(
                [sys.executable, "-S", str(script), *arguments],
                check=True,
                env={"PYTHONHASHSEED": self.seed},
            )

    made = {cook(recipe(pin), files, Seeded(seed)).data for seed in ("0", "1", "31337")}
    assert made == {cook(recipe(pin), files, this_python).data}


def test_python_takes_the_bytecode_without_its_source(cook, wheel, this_python):
    """The header is that of a hash, and the code knows its path in the image."""
    pin, files = wheel()
    made = cook(recipe(pin), files, this_python)
    data = made.read(f"{SITE}/pkg/__pycache__/used.{TAG}.pyc")
    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert data[4:8] == b"\x03\0\0\0"
    assert data[8:16] == importlib.util.source_hash(SOURCES["pkg/used.py"].encode())
    code = marshal.loads(data[16:])
    assert code.co_filename == f"/{SITE}/pkg/used.py"
    assert frozenset("abc") in code.co_consts


def test_the_interpreter_imports_from_the_layer(cook, wheel, this_python, tmp_path):
    """An import takes torch's bytecode beside the source unread, and writes none."""
    pin, files = wheel({"m.py": "value = 'from the source'\n"}, "torch")
    made = cook(recipe(pin), files, this_python)
    cache = tmp_path / "site" / "__pycache__"
    cache.mkdir(parents=True)
    data = made.read(f"{SITE}/__pycache__/m.{TAG}.pyc")
    (cache / f"m.{TAG}.pyc").write_bytes(data)
    (cache.parent / "m.py").write_text("value = 'something else'\n")
    found = subprocess.run(
        [sys.executable, "-c", "import m; print(m.value)"],
        cwd=cache.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "from the source\n"


def test_a_module_that_another_wheel_replaced_is_compiled_anew(cook, wheel, this_python, tmp_path):
    """Bytecode of a source that an upper layer has replaced is not taken for the new one's."""
    pin, files = wheel({"m.py": "value = 'lower'\n"})
    made = cook(recipe(pin), files, this_python)
    cache = tmp_path / "site" / "__pycache__"
    cache.mkdir(parents=True)
    (cache / f"m.{TAG}.pyc").write_bytes(made.read(f"{SITE}/__pycache__/m.{TAG}.pyc"))
    for value in ("lower", "upper"):
        (cache.parent / "m.py").write_text(f"value = {value!r}\n")
        command = [sys.executable, "-Bc", "import m; print(m.value)"]
        said = subprocess.run(command, cwd=cache.parent, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == value


def test_without_an_interpreter_the_error_says_what_to_do(cook, wheel):
    """Another Python's bytecode is never shipped instead."""
    pin, files = wheel()
    with pytest.raises(EngineError) as raised:
        cook(recipe(pin), files)
    assert 'bytecode = "none"' in raised.value.hint


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (struct.pack("<2I", 10**6, 0), "not asked for"),
        (struct.pack("<2I", 0, 10**6), "not asked for"),
        (b"\0\0\0", "cut short"),
    ],
)
def test_a_compiler_that_gives_more_is_not_believed(cook, wheel, answer, why):
    """What comes back from the container can only be what was asked for."""

    class Liar:
        def run(self, script, arguments):
            Path(arguments[1]).write_bytes(answer)

    pin, files = wheel()
    with pytest.raises(EngineError, match=why):
        cook(recipe(pin), files, Liar())


def test_stored_sources_and_extra_fields_are_read(cook, wheel, tmp_path, this_python):
    """A source need not be deflated, nor follow its name at once."""
    path = tmp_path / "pkg-1.0-py3-none-any.whl"
    info = zipfile.ZipInfo("pkg.py")
    info.extra = b"\xfe\xca\x02\x00ab"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(info, "value = 'stored'\n")
    digest = Digest.of_file(path)
    pin = WheelPin(
        name="pkg", version="1.0", filename=path.name, size=path.stat().st_size, digest=digest
    )
    made = cook(recipe(pin), {digest: path}, this_python)
    assert "stored" in marshal.loads(made.read(f"{SITE}/__pycache__/pkg.{TAG}.pyc")[16:]).co_consts


def test_long_modules_are_followed(cook, wheel, this_python):
    """Imports whose operands do not fit into one byte are read as well as the others."""
    first = "".join(f"n{n} = {n}.5\n" for n in range(400)) + "from . import far\n"
    sources = {"pkg/__init__.py": first, "pkg/far.py": "import other\n", "pkg/not.py": ""}
    pin, files = wheel(sources)
    assert compiled(cook(recipe(pin), files, this_python)) == ["pkg/__init__", "pkg/far"]


def test_every_input_is_in_the_key(wheel):
    """The wheels, what is pruned, the full version of Python and the mode each change it."""
    pin, _ = wheel()
    other, _ = wheel({"x.py": ""}, "x")
    variants = [
        BytecodeRecipe(wheels=wheels, prune=prune, python=python, mode=mode)
        for wheels in [(pin,), (pin, other)]
        for prune in [(), ("x/",)]
        for python in ["3.11.2", "3.11.7"]
        for mode in ["imported", "all"]
    ]
    assert len({key(variant) for variant in variants}) == len(variants)


def test_the_standard_library_is_compiled_where_debian_has_it(cook, debs, member_of, this_python):
    """What scripts import, or all but IDLE and tests, in Debian's folders."""
    version = "{}.{}".format(*sys.version_info[:2])
    top = f"./usr/lib/python{version}"
    minimal = debs.make(
        f"libpython{version}-minimal",
        [
            member_of(f"{top}/site.py", b"import os\n"),
            member_of(f"{top}/os.py", b"import sys\n"),
            member_of(f"{top}/re/__init__.py", b""),
            member_of(f"{top}/test/support.py", b""),
            member_of(f"{top}/link.py", type=tarfile.SYMTYPE, target="os.py"),
        ],
    )
    stdlib = debs.make(
        f"libpython{version}-stdlib",
        [member_of(f"{top}/idlelib/a.py", b""), member_of(f"{top}/json/b.py", b"")],
    )
    other = debs.make("other", [member_of(f"{top}/c.py", b"")])
    packages = (other, stdlib, minimal)
    made = {
        mode: cook(
            DebianBytecodeRecipe(packages=packages, python=platform.python_version(), mode=mode),
            debs.files,
            this_python,
        )
        for mode in ("imported", "all")
    }
    names = {
        mode: sorted(name.rpartition("/")[2].split(".")[0] for name in of.names)
        for mode, of in made.items()
    }
    assert names == {"imported": ["os", "site"], "all": ["__init__", "b", "os", "site"]}
    path = f"usr/lib/python{version}/__pycache__/os.{TAG}.pyc"
    assert (
        marshal.loads(made["imported"].read(path)[16:]).co_filename
        == f"/usr/lib/python{version}/os.py"
    )
