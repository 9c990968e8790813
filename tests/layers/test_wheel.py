"""The layer of wheels: where each file goes, with which mode, and what RECORD says of it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import sys
import tarfile

import pytest
from msgspec.structs import replace
from tests.layers.wheels import NAME, WHEEL, File, members, pinned, zipped

from torchship.errors import WheelError
from torchship.layers.archive import Archive
from torchship.layers.bytecode import BytecodeRecipe
from torchship.layers.layer import Materials, key
from torchship.layers.wheel import WheelsRecipe

SITE = "opt/venv/lib/python3.11/site-packages"
INFO = f"{SITE}/demo-1.0.dist-info"
SCRIPT = b"#!python -s\r\nprint(1)\n"


def _recipe(tmp_path, *wheels: bytes | tuple[str, bytes], prune=(), python="3.11.2"):
    pins, files = [], {}
    for wheel in wheels:
        filename, data = (NAME, wheel) if isinstance(wheel, bytes) else wheel
        pin, found = pinned(tmp_path, data, filename)
        pins.append(pin)
        files.update(found)
    recipe = WheelsRecipe(wheels=tuple(pins), python=python, prune=prune)
    return recipe, Materials(files=files, scratch=tmp_path)


def _layer(recipe, materials) -> bytes:
    sink = io.BytesIO()
    archive = Archive(sink)
    recipe.write(archive, materials)
    archive.close()
    return sink.getvalue()


def _tree(tmp_path, *wheels, **settings) -> dict[str, tuple[int, bytes]]:
    layer = _layer(*_recipe(tmp_path, *wheels, **settings))
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        return {
            info.name: (info.mode, tar.extractfile(info).read()) for info in tar if info.isreg()
        }


def _record(tree: dict[str, tuple[int, bytes]], info: str = INFO) -> dict[str, list[str]]:
    rows = list(csv.reader(tree[f"{info}/RECORD"][1].decode().splitlines()))
    assert rows == sorted(rows)
    return {path: sums for path, *sums in rows}


def _demo(*files: File, **settings) -> bytes:
    return zipped(*members(*files, **settings))


def _sums(content: bytes) -> list[str]:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return [f"sha256={digest}", str(len(content))]


def test_modes_are_pips(tmp_path):
    """A file is 0644, or 0755 where the wheel gives it any x bit."""
    tree = _tree(
        tmp_path,
        _demo(
            File(name="a.py", mode=0o100600),
            File(name="b.sh", mode=0o100711),
            File(name="demo-1.0.data/scripts/s", content=b"#!/bin/sh\n", mode=0o100755),
        ),
    )
    assert tree[f"{SITE}/a.py"][0] == 0o644
    assert tree[f"{SITE}/b.sh"][0] == 0o755
    assert tree["opt/venv/bin/s"] == (0o755, b"#!/bin/sh\n")


def test_each_scheme_has_its_place(tmp_path):
    """The folders of .data are spread over the environment as pip does it."""
    data = "demo-1.0.data"
    tree = _tree(
        tmp_path,
        _demo(
            File(name=f"{data}/purelib/pure.py"),
            File(name=f"{data}/platlib/plat.so"),
            File(name=f"{data}/scripts/tool"),
            File(name=f"{data}/headers/demo.h"),
            File(name=f"{data}/data/share/man/demo.1"),
            File(name=f"{data}/data/lib64/demo.so"),
        ),
    )
    made = {"INSTALLER", "REQUESTED", "METADATA", "WHEEL", "RECORD"}
    assert set(tree) == {
        f"{SITE}/pure.py",
        f"{SITE}/plat.so",
        "opt/venv/bin/tool",
        "opt/venv/include/site/python3.11/demo/demo.h",
        "opt/venv/share/man/demo.1",
        "opt/venv/lib/demo.so",  # lib64 is a link to lib
        *(f"{INFO}/{name}" for name in made),
    }
    assert tree[f"{INFO}/INSTALLER"] == (0o644, b"pip\n")
    assert tree[f"{INFO}/REQUESTED"] == (0o644, b"")


def test_scripts_get_the_image_s_python(tmp_path):
    """A first line of #!python is rewritten, arguments and all, and RECORD hashes the result."""
    tree = _tree(
        tmp_path,
        _demo(
            File(name="demo-1.0.data/scripts/run", content=SCRIPT, mode=0o100755),
            File(name="demo-1.0.data/scripts/keep", content=b"#!/usr/bin/python\n"),
        ),
    )
    rewritten = b"#!/opt/venv/bin/python\nprint(1)\n"
    assert tree["opt/venv/bin/run"] == (0o755, rewritten)
    assert tree["opt/venv/bin/keep"] == (0o644, b"#!/usr/bin/python\n")


def test_entry_points_become_launchers(tmp_path):
    """Each console and GUI entry point is a program in bin; the wheel's own launcher gives way."""
    text = b"[console_scripts]\ndemo = demo.cli:main\n[gui_scripts]\nwin = demo:App.run [x]\n"
    tree = _tree(
        tmp_path,
        _demo(
            File(name="demo-1.0.dist-info/entry_points.txt", content=text),
            File(name="demo-1.0.data/scripts/demo-script.py", content=b"old"),
            File(name="demo-1.0.data/scripts/win.exe", content=b"old"),
        ),
    )
    mode, launcher = tree["opt/venv/bin/demo"]
    assert mode == 0o755
    assert launcher.startswith(b"#!/opt/venv/bin/python\n")
    assert b"from demo.cli import main\n" in launcher
    assert b"from demo import App\n" in tree["opt/venv/bin/win"][1]
    assert b"sys.exit(App.run())" in tree["opt/venv/bin/win"][1]
    assert {path for path in tree if "/bin/" in path} == {"opt/venv/bin/demo", "opt/venv/bin/win"}
    assert _record(tree)["../../../bin/demo"] == _sums(launcher)


def test_of_two_programs_with_one_name_pips_last_stays(tmp_path):
    """The GUI's comes after the console's, wherever it stands; RECORD has a row for each."""
    text = b"[gui_scripts]\na = m:gui\n[console_scripts]\nmy b = m:first\na = m:x\nb = m:last\n"
    tree = _tree(tmp_path, _demo(File(name="demo-1.0.dist-info/entry_points.txt", content=text)))
    assert b"from m import gui\n" in tree["opt/venv/bin/a"][1]
    assert b"from m import last\n" in tree["opt/venv/bin/b"][1]
    rows = list(csv.reader(tree[f"{INFO}/RECORD"][1].decode().splitlines()))
    for name in ("a", "b"):
        row = [f"../../../bin/{name}", *_sums(tree[f"opt/venv/bin/{name}"][1])]
        assert rows.count(row) == 2


def test_a_program_that_cannot_be_made_is_told_and_left_out(tmp_path):
    """The wheel is refused by pip; the others of its programs, and its modules, are as good."""
    bad = [f"bad{number} = m" for number in range(5)]
    text = "\n".join(["[console_scripts]", "good = m:x", *bad]).encode()
    recipe, materials = _recipe(
        tmp_path, _demo(File(name="demo-1.0.dist-info/entry_points.txt", content=text))
    )
    said: list[str] = []
    layer = _layer(recipe, replace(materials, say=said.append))
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        programs = [name for name in tar.getnames() if "/bin/" in name]
    assert programs == ["opt/venv/bin/good"]
    (line,) = said
    assert line.startswith(
        f"{NAME}: no program is made of 'bad0 = m', 'bad1 = m', 'bad2 = m' and 2"
    )


def test_record_says_what_is_there(tmp_path):
    """RECORD keeps the wheel's sums, moves its rows, hashes what was made, ends lines as pip."""
    record = (
        b"a.py,sha256=abc,5\n"
        b"demo-1.0.data/data/etc/demo.conf,sha256=def,6\n"
        b"demo-1.0.data/scripts/run,sha256=ghi,7\n"
        b'"with, comma.py",sha256=jkl,8\n'
        b"demo-1.0.dist-info/RECORD,,\n"
    )
    tree = _tree(
        tmp_path,
        _demo(
            File(name="a.py", content=b"hello"),
            File(name="with, comma.py"),
            File(name="unlisted.py"),
            File(name="demo-1.0.data/data/etc/demo.conf"),
            File(name="demo-1.0.data/scripts/run", content=SCRIPT),
            record=record,
        ),
    )
    rows = _record(tree)
    assert rows["a.py"] == ["sha256=abc", "5"]
    assert rows["../../../etc/demo.conf"] == ["sha256=def", "6"]
    assert rows["../../../bin/run"] == _sums(b"#!/opt/venv/bin/python\nprint(1)\n")
    assert rows["with, comma.py"] == ["sha256=jkl", "8"]
    assert rows["unlisted.py"] == ["", ""]
    assert rows["demo-1.0.dist-info/INSTALLER"] == _sums(b"pip\n")
    assert rows["demo-1.0.dist-info/REQUESTED"] == _sums(b"")
    assert rows["demo-1.0.dist-info/RECORD"] == ["", ""]
    raw = tree[f"{INFO}/RECORD"][1]
    assert raw.count(b"\r\n") == raw.count(b"\n") == len(rows)


def test_pruned_files_leave_no_trace(tmp_path):
    """What a pattern names is neither in the layer nor in RECORD; bin is never pruned."""
    wheel = _demo(
        File(name="torch/test/x.py"),
        File(name="torch/bin/test_api"),
        File(name="torch/bin/torch_shm_manager"),
        File(name="demo-1.0.data/scripts/test_tool"),
    )
    tree = _tree(tmp_path, wheel, prune=("torch/test/", "test_*"))
    kept = {path for path in tree if "dist-info" not in path}
    assert kept == {f"{SITE}/torch/bin/torch_shm_manager", "opt/venv/bin/test_tool"}
    rows = _record(tree)
    assert "torch/test/x.py" not in rows
    assert "../../../bin/test_tool" in rows


def _part(name: str, content: bytes) -> tuple[str, bytes]:
    files = [
        File(name="shared/__init__.py", content=content),
        File(name=f"{name}-1.dist-info/WHEEL", content=WHEEL),
        File(name=f"{name}-1.dist-info/RECORD", content=b""),
    ]
    return f"{name}-1-py3-none-any.whl", zipped(*files)


def test_of_two_wheels_with_one_path_the_later_name_wins(tmp_path):
    """Wheels of one layer may share a path: the file of the later name stays, once."""
    wheels = [_part("bbb", b"second"), _part("aaa", b"first")]
    tree = _tree(tmp_path, *wheels)
    assert tree[f"{SITE}/shared/__init__.py"][1] == b"second"
    assert _tree(tmp_path, *reversed(wheels)) == tree


def test_the_order_of_pins_changes_nothing(tmp_path):
    """The layer's bytes and its key are the same in whatever order the wheels are given."""
    wheels = [_part("bbb", b"2"), _part("aaa", b"1"), _demo(File(name="a.py"))]
    first, second = _recipe(tmp_path, *wheels), _recipe(tmp_path, *reversed(wheels))
    assert _layer(*first) == _layer(*second)
    assert key(first[0]) == key(second[0])


def test_a_patch_release_of_python_changes_nothing(tmp_path):
    """Only the minor version names site-packages, so only it is in the key."""
    wheel = _demo(File(name="a.py"))
    keys = [key(_recipe(tmp_path, wheel, python=it)[0]) for it in ("3.11", "3.11.9", "3.12.0")]
    assert keys[0] == keys[1] != keys[2]
    assert any("python3.12" in path for path in _tree(tmp_path, wheel, python="3.12.0"))


def test_pip_s_programs_are_named_after_the_image_s_python(tmp_path):
    """As pip installs itself: pip, pip3 and pip3.11, whatever Python built its wheel."""
    text = b"[console_scripts]\npip = pip:main\npip3 = pip:main\npip3.9 = pip:main\nx = y:z\n"
    tree = _tree(tmp_path, _demo(File(name="demo-1.0.dist-info/entry_points.txt", content=text)))
    programs = {path.rpartition("/")[2] for path in tree if "/bin/" in path}
    assert programs == {"pip", "pip3", "pip3.11", "x"}


INFO_FILES = {
    "METADATA": File(name="demo-1.0.dist-info/METADATA", content=b"Name: demo\n"),
    "WHEEL": File(name="demo-1.0.dist-info/WHEEL", content=WHEEL),
    "RECORD": File(name="demo-1.0.dist-info/RECORD"),
}


@pytest.mark.parametrize("missing", ["WHEEL", "RECORD"])
def test_a_wheel_lacks_nothing_that_makes_one(tmp_path, missing):
    """A wheel without WHEEL or RECORD is an error."""
    files = [file for name, file in INFO_FILES.items() if name != missing]
    with pytest.raises(WheelError, match=f"has no {missing}"):
        _tree(tmp_path, zipped(*files))


@pytest.mark.parametrize(
    ("file", "match"),
    [
        (File(name="demo-1.0.data/elsewhere/x"), "none of data, headers"),
        (File(name="demo-1.0.data/x"), "none of data, headers"),
        (File(name="demo-1.0.data/data/bin/python"), "would replace /opt/venv/bin/python"),
        (File(name="demo-1.0.data/scripts/python3.11"), "would replace"),
        (File(name="demo-1.0.data/data/pyvenv.cfg"), "would replace"),
        (File(name="other-2.dist-info/METADATA"), "2 .dist-info folders"),
        (File(name="demo-1.0.dist-info/entry_points.txt", content=b"\xff"), "not UTF-8"),
    ],
)
def test_what_cannot_be_installed_is_an_error(tmp_path, file, match):
    """Unknown schemes, a second distribution, text that is none: errors that name the wheel."""
    with pytest.raises(WheelError, match=match) as caught:
        _tree(tmp_path, _demo(file))
    assert NAME in caught.value.message


def test_a_wheel_must_be_the_one_that_its_name_says(tmp_path):
    """A distribution or version other than the file's name states is an error."""
    for filename in ("other-1.0-py3-none-any.whl", "demo-2.0-py3-none-any.whl"):
        with pytest.raises(WheelError, match="holds another distribution"):
            _tree(tmp_path, (filename, _demo(File(name="a.py"))))
    assert _tree(tmp_path, ("Demo-1-py3-none-any.whl", _demo(File(name="a.py"))))


def test_another_wheel_version_is_an_error(tmp_path):
    """Installers refuse a wheel of a format version that they do not know."""
    files = {
        **INFO_FILES,
        "WHEEL": File(name=INFO_FILES["WHEEL"].name, content=b"Wheel-Version: 2"),
    }
    with pytest.raises(WheelError, match="wheel version 2"):
        _tree(tmp_path, zipped(*files.values()))


def test_what_a_recipe_says_of_itself(tmp_path):
    """The title names the wheels, the origin their digests, the needs the files."""
    recipe, materials = _recipe(tmp_path, *(_part(f"w{number}", b"") for number in range(6)))
    assert recipe.title == "w0 1, w1 1, w2 1, w3 1 and 2 more"
    assert set(recipe.needs) == set(materials.files)
    assert all(str(digest) in str(recipe.origin) for digest in recipe.needs)


def test_the_bytecode_is_of_the_file_that_wins(tmp_path, this_python):
    """Where two wheels share a module, the bytecode layer holds that of the later one, once."""
    recipe, materials = _recipe(tmp_path, _part("aaa", b"first"), _part("bbb", b"second"))
    python = ".".join(map(str, sys.version_info[:3]))
    compiled = BytecodeRecipe(wheels=recipe.wheels, prune=(), python=python, mode="all")
    layer = _layer(compiled, replace(materials, interpreter=this_python))
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        (only,) = (tar.extractfile(info).read() for info in tar if info.isreg())
    assert b"second" in only
