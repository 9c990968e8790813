"""The programs that entry points make are those that pip makes of them."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.layers.wheels import NAME, File, members, zipped

from torchship.layers.entrypoints import parse

CONSOLE = "[console_scripts]\n"

TAKEN = {
    "a = m:x": {"a": ("m", "x")},
    "a = m.n:X.y [extra]": {"a": ("m.n", "X.y")},
    "a = m:x  # a comment": {"a": ("m", "x")},
    "a = m:x()": {"a": ("m", "x")},
    "a = m:x-y": {"a": ("m", "x")},
    "my prog = m:x": {"prog": ("m", "x")},
    "a:b = m:x": {"b": ("m", "x")},
    "a@b = m:x": {"b": ("m", "x")},
    "../q = m:x": {"q": ("m", "x")},
    "my prog = m:x\nprog = m:y": {"prog": ("m", "y")},
    "prog = m:y\nmy prog = m:x": {"prog": ("m", "x")},
    "[gui_scripts]\na = m:gui\n[console_scripts]\na = m:x": {"a": ("m", "gui")},
    "[[console_scripts]]\na = m:x": {"a": ("m", "x")},
    "[ console_scripts ]\na = m:x": {},
    "# a = m:x\n[other]\na = m": {},
}

REFUSED = [
    *("a = m", "a = m : x", "a = m:x:y", "a = m:x [e.f]", "a = [m:x", "a] = m:x", "a = b = m:x"),
    *("= m:x", "a", "a = :x", "a =", ".. = m:x", "@ = m:x", f"{'a' * 300} = m:x"),
]


def _text(lines: str) -> str:
    return lines if lines.startswith(("[", "#")) else CONSOLE + lines


def _programs(lines: str, python: str = "3.11") -> dict[str, tuple[str, str]]:
    programs, refused = parse(_text(lines)).programs(python)
    assert refused == ()
    return {program.name: (program.module, program.call) for program in programs}


@pytest.mark.parametrize("lines", TAKEN)
def test_lines_that_pip_takes_make_programs(lines):
    """A name is the last word before the sign, a value what it begins with; the last counts."""
    assert _programs(lines) == TAKEN[lines]


@pytest.mark.parametrize("line", REFUSED)
def test_lines_that_pip_refuses_make_none(line):
    """They are returned, to be told; those around them make their programs."""
    programs, refused = parse(f"{CONSOLE}{line}\nz = m:x\n").programs("3.11")
    assert [program.name for program in programs] == ["z"]
    assert len(refused) == 1
    assert refused[0].strip().startswith(line.split(" ")[0].rstrip("="))


def test_setuptools_own_programs_are_named_after_the_image_s_python():
    """As pip's are, and only where the program itself is declared."""
    made = _programs("easy_install = s:main\neasy_install-3.6 = s:main\npip3.6 = p:main", "3.12")
    assert set(made) == {"easy_install", "easy_install-3.12", "pip3.6"}


def test_a_long_line_takes_no_long_time():
    """What is a stranger's may be of any length."""
    began = time.perf_counter()
    for line in ("a" * 500_000, "a = " + "m." * 200_000, "a" * 500_000 + " = m", "=" * 500_000):
        parse(CONSOLE + line).programs("3.11")
    assert time.perf_counter() - began < 5


def _installed(folder: Path, text: str) -> dict[str, str] | None:
    """Return the programs that pip makes, by name; None where it refuses the wheel."""
    folder.mkdir()
    wheel = folder / NAME
    entries = File(name="demo-1.0.dist-info/entry_points.txt", content=text.encode())
    wheel.write_bytes(zipped(*members(entries)))
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile"]
    command += ["--no-index", "--disable-pip-version-check", "--target", folder / "out", wheel]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    programs = folder / "out/bin"
    return {path.name: path.read_text() for path in programs.iterdir()} if programs.exists() else {}


def _calls(launcher: str) -> list[str]:
    """Return the lines that pips of all versions write."""
    return [line for line in launcher.splitlines() if re.search(r"^from|sys\.exit", line)]


def test_pip_takes_and_refuses_the_same(tmp_path):
    """Of some lines of each kind: the same programs call the same, or pip refuses the wheel."""
    pytest.importorskip("pip", reason="the Python that runs the tests has no pip")
    whole = "\n".join(line for line in TAKEN if "[" not in line and "prog" not in line)
    odd = f"{CONSOLE}{whole}\nmy prog = m:x\n[gui_scripts]\nprog = m:y\n[ gui_scripts ]\nz = m:x\n"
    theirs = _installed(tmp_path / "taken", odd)
    assert theirs is not None
    programs, refused = parse(odd).programs("3.11")
    assert refused == ()
    ours = {program.name: program.launcher(sys.executable).decode() for program in programs}
    assert {name: _calls(text) for name, text in theirs.items()} == {
        name: _calls(text) for name, text in ours.items()
    }
    for number, line in enumerate(("a = m", "a = m : x", "a")):
        assert _installed(tmp_path / str(number), CONSOLE + line) is None
