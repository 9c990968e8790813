"""Interpreters for the image's bytecode."""

import pickle
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from tests import pythons

from torchship.engines import namespaces
from torchship.engines.namespaces import Obstacle
from torchship.engines.python import BasePython, HostPython, LoadedPython, interpreter_for
from torchship.errors import EngineError
from torchship.platform import Platform

from .conftest import linux

pytestmark = linux

SCRIPT = """
import os, sys
source, text, target = sys.argv[1:]
assert not any("site-packages" in path for path in sys.path)
with open(source) as stream, open(target, "w") as sink:
    print(text, stream.read(), sys.version.split()[0], sorted(os.environ), file=sink)
try:
    open(source, "a")
    print("source is writable", file=sys.stderr)
except OSError:
    pass
"""


@pytest.fixture
def base(root):
    """Return the interpreters of the root, by name."""
    return {
        "sandbox": BasePython(
            layers=(root,), program="python3.11", scratch=root.parent / "scratch"
        ),
        "loader": LoadedPython(root=root, version="3.11.2", platform=Platform.host()),
        "host": HostPython(),
    }


@pytest.mark.parametrize("kind", ["sandbox", "loader", "host"])
def test_a_script_reads_and_writes_what_its_arguments_name(base, tmp_path, kind, monkeypatch):
    """Also after a trip to a worker process, and with nothing of the caller's environment."""
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    script, source, target = tmp_path / "s.py", tmp_path / "in put", tmp_path / "new" / "out put"
    script.write_text(SCRIPT)
    source.write_text("content")
    target.parent.mkdir()
    interpreter = pickle.loads(pickle.dumps(base[kind]))
    interpreter.run(script, [str(source), "-O", str(target)])
    text = target.read_text()
    assert text.startswith("-O content 3.11.")
    assert "TOKEN" not in text


@pytest.mark.parametrize("minor", [9, 10, 11])
def test_an_old_base_compiles_without_namespaces(tmp_path, minor):
    """Debian bullseye has Python 3.9, which knows fewer options."""
    program = Path(pythons.python(minor))
    home = Path(
        subprocess.run(
            [program, "-c", "import sys; print(sys.base_prefix)"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
    )  # fmt: skip
    platform = Platform.host()
    usr = tmp_path / "root" / "usr"
    libraries = usr / "lib" / platform.triplet
    for folder in (libraries, usr / "bin"):
        folder.mkdir(parents=True)
    loader = next(Path("/lib", platform.triplet).glob("ld-linux-*.so.*"))
    (libraries / loader.name).symlink_to(loader)
    (usr / "bin" / f"python3.{minor}").symlink_to(program)
    (usr / "lib" / f"python3.{minor}").symlink_to(home / "lib" / f"python3.{minor}")
    script, out = tmp_path / "s.py", tmp_path / "out"
    script.write_text("import sys; open(sys.argv[1], 'w').write(sys.prefix)")
    old = LoadedPython(root=usr.parent, version=f"3.{minor}.1", platform=platform)
    old.run(script, [str(out)])
    assert out.read_text() == str(usr)


@pytest.mark.parametrize("kind", ["sandbox", "loader", "host"])
def test_a_script_that_fails_says_why(base, tmp_path, kind):
    """The end of what it printed is in the error."""
    script = tmp_path / "s.py"
    script.write_text("raise SystemExit('this is why')")
    with pytest.raises(EngineError, match="this is why"):
        base[kind].run(script, [])


def test_a_script_in_the_sandbox_sees_no_other_file(base, tmp_path):
    """Not even the neighbours of its arguments."""
    script, source, neighbour = (tmp_path / name for name in ("s.py", "source", "neighbour"))
    script.write_text(
        "import os, sys; print(os.listdir(os.path.dirname(sys.argv[1]))); "
        f"sys.exit(os.path.exists({str(neighbour)!r}) or len(os.listdir('/run/0')) != 1)"
    )
    source.touch()
    neighbour.touch()
    base["sandbox"].run(script, [str(source)])


def test_the_hosts_python_is_taken_where_its_version_is_the_same(store):
    """To the last number: a patch release may compile differently."""
    assert interpreter_for(platform.python_version(), base=(), store=store) == HostPython()


def test_otherwise_the_bases_is_unpacked_and_used(store, root_layer, tmp_path):
    """And it is the base's that answers."""
    found = interpreter_for("3.11.99", base=[root_layer[1]], store=store)
    assert isinstance(found, BasePython)
    script, target = tmp_path / "s.py", tmp_path / "out"
    script.write_text("import sys; open(sys.argv[1], 'w').write(sys.prefix)")
    found.run(script, [str(target)])
    assert target.read_text() == "/usr"


def test_no_interpreter_is_an_error(store, monkeypatch):
    """Neither here nor in a base; nor a base's where no program of Linux starts."""
    with pytest.raises(EngineError):
        interpreter_for("3.2.1", base=(), store=store)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(EngineError, match=f"darwin.* for {Platform.host()}") as caught:
        interpreter_for("3.2.1", base=(), store=store)
    assert 'bytecode = "none"' in caught.value.hint


def test_without_namespaces_a_published_base_cannot_compile(store, root_layer, monkeypatch):
    """The hint is for a build: there is no image yet that could be saved for Docker."""
    reason = "this machine allows no user namespaces"
    monkeypatch.setattr(namespaces, "obstacle", lambda: Obstacle(reason, namespaces.OTHER))
    before = set(store.unpacked.iterdir())
    with pytest.raises(EngineError, match=reason) as caught:
        interpreter_for("3.11.99", base=[root_layer[1]] * 2, store=store)
    assert 'bytecode = "none"' in caught.value.hint
    assert "save" not in caught.value.hint
    assert set(store.unpacked.iterdir()) == before, "layers were unpacked for nothing"


def test_on_a_mac_the_engines_are_there_and_the_native_one_says_what_it_lacks(tmp_path):
    """Its processor's name is not Linux's, and none of Linux's calls is made there."""
    program = """
import os, sys
from pathlib import Path
os.uname = lambda: os.uname_result(("Darwin", "mac", "24.0.0", "Darwin", "arm64"))
import torchship.engines.python
from torchship.engines.choose import engines
from torchship.oci.store import Store
*_, native = engines(Store.open(Path(sys.argv[1])))
sys.platform = "darwin"
print(native.missing())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "the native engine runs on Linux only", done.stderr
