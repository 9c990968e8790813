"""From a directory to a running program: a base of Debian's own packages, on the native engine.

The packages come from where this machine's apt is configured to look, once for all tests.
"""

from __future__ import annotations

import json
import os
import platform
import pty
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from tests.machine import Machine, layers, sealed, verify

from torchship.engines import namespaces

pytestmark = pytest.mark.network

ROOT = Path(__file__).parents[2]
NATIVE = ("--engine", "native")  # which the fixture makes sure of; Docker or Podman may be there
SHOW = """\
import json, os, sys
print(json.dumps({"arguments": sys.argv[1:], "uid": os.getuid(), "cwd": os.getcwd(),
    "environment": dict(os.environ), "version": sys.version.split()[0]}))
"""


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """Make a store that holds a base, and the lock of a bare project.

    Each worker has its own: tests build images of one name, one after another.
    """
    if shutil.which("apt-get") is None:
        pytest.skip("apt-get resolves the base, and is not here")
    folder = tmp_path_factory.getbasetemp() / "shared"
    if not (folder / "built").exists():  # by another module, which has this fixture as its own
        machine = sealed(folder)
        machine.build(machine.project("bare", settings=""))
        (folder / "built").touch()
    return folder


@pytest.fixture
def machine(shared, tmp_path) -> Machine:
    """Give a machine with that store, which can run what it builds."""
    found = namespaces.obstacle()
    if found is not None:
        if os.environ.get("TORCHSHIP_REQUIRE_ENGINES") == "1":
            pytest.fail(found.reason)
        pytest.skip(found.reason)
    return sealed(tmp_path).with_environment(TORCHSHIP_HOME=shared / "store")


@pytest.fixture
def bare(machine, shared) -> Path:
    """Give a project without settings or requirements, locked."""
    project = machine.project("bare", settings="", main__py=SHOW)
    shutil.copyfile(shared / "bare" / "torchship.lock", project / "torchship.lock")
    return project


def test_what_a_program_sees(machine, bare):
    """Its arguments, an ordinary user, its own directory, and no variable of the caller's."""
    there = machine.with_environment(SECRET="mine")
    answer = there.torchship(
        "run", *NATIVE, bare, "-e", "GIVEN=1", "--", "python", "main.py", "--a", "b c"
    )
    assert answer.status == 0, answer.err
    seen = json.loads(answer.out)
    assert seen["arguments"] == ["--a", "b c"]
    assert (seen["uid"], seen["cwd"]) == (1000, "/workspace")
    assert seen["environment"]["GIVEN"] == "1"
    assert "SECRET" not in seen["environment"]
    assert seen["version"].startswith("3.11.")


def test_the_run_directory(machine, bare):
    """What the program wrote and printed is kept, with a record; -o names the place."""
    (bare / "main.py").write_text(
        "import json, os, pathlib\nprint('said')\n"
        "out = pathlib.Path(os.environ['TORCHSHIP_OUTPUT'])\n"
        "(out / 'deep').mkdir()\n(out / 'deep' / 'model').write_text('weights')\n"
        "(out / 'metrics.json').write_text(json.dumps({'loss': 0.5}))\n"
    )
    answer = machine.torchship("run", *NATIVE, bare)
    assert answer.status == 0, answer.err
    (found,) = (machine.root / "runs").iterdir()
    assert f"run directory: runs/{found.name}\n" in answer.err
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{12}", found.name)
    assert (found / "output" / "deep" / "model").read_text() == "weights"
    assert (found / "output" / "deep" / "model").stat().st_uid == os.geteuid()
    assert (found / "stdout.log").read_text() == "said\n"
    assert json.loads((found / "record.json").read_bytes())
    assert machine.torchship("run", *NATIVE, "-o", "here", bare).status == 0
    assert (machine.root / "here" / "output" / "metrics.json").is_file()


@pytest.mark.parametrize(("program", "status"), [("exit(7)", 7), ("import os; os.abort()", 134)])
def test_exit_status(machine, bare, program, status):
    """`run` ends with the program's exit status, 128 + N after signal N."""
    assert machine.torchship("run", *NATIVE, bare, "--", "python", "-c", program).status == status


def test_a_program_that_is_not_there(machine, bare):
    """A command that the image lacks is 125, and named."""
    machine.torchship("run", *NATIVE, bare, "--", "nothing-here").fails("nothing-here", status=125)


def test_mounts(machine, bare):
    """-v shows a folder of the host, for reading alone with :ro."""
    (machine.root / "data").mkdir()
    (machine.root / "data" / "in").write_text("there\n")
    script = "cat /data/in; touch /data/new; test -e /home/user/.. && ls /"
    answer = machine.torchship(
        "run", *NATIVE, bare, "-v", "./data:/data:ro", "--", "sh", "-c", script
    )
    assert answer.out.startswith("there\n")
    assert "Read-only file system" in answer.err
    answer = machine.torchship("run", *NATIVE, bare, "-v", "./data:/data", "--", "sh", "-c", script)
    assert answer.status == 0
    assert (machine.root / "data" / "new").exists()


def test_no_network_unless_asked(machine, bare):
    """A program reaches a server of this machine with --network, and not without."""
    import http.server

    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    reach = f"import socket; socket.create_connection(('127.0.0.1', {server.server_port})).close()"
    try:
        refused = machine.start("run", *NATIVE, bare, "--", "python", "-c", reach)
        assert "ConnectionRefusedError" in refused.communicate()[1]
        assert (
            machine.torchship("run", *NATIVE, "--network", bare, "--", "python", "-c", reach).status
            == 0
        )
    finally:
        server.shutdown()
        server.server_close()


def test_a_failed_download_tells_how_to_get_a_network(machine, bare):
    """Of a program that had none, and looked for one; what else fails has other reasons."""
    fetch = "import urllib.request; urllib.request.urlopen('http://data.example/x')"
    hint = "the program had no network: --network gives it"
    process = machine.start("run", *NATIVE, bare, "--", "python", "-c", fetch)
    assert hint in process.communicate()[1]
    assert process.returncode == 1
    assert hint not in machine.torchship("run", *NATIVE, bare, "--", "sh", "-c", "exit 1").err


def test_ctrl_c_reaches_the_program(machine, bare):
    """The program can save its work when Ctrl-C comes; its status is returned."""
    (bare / "main.py").write_text(
        "import time\ntry:\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('saved', flush=True)\n    raise SystemExit(5)\n"
    )
    process = machine.start("run", *NATIVE, bare, start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("saved\n", 5), err
    assert "Traceback" not in err


def test_a_terminal(machine, bare):
    """`run -it` gives the program a terminal to talk on."""
    ours, theirs = pty.openpty()
    process = machine.start(
        *("run", *NATIVE, "-it", bare, "--", "bash", "-c", "tty -s && read word && echo got $word"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, b"hello\n")
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the terminal is gone with the last program on it
        pass
    os.close(ours)
    assert process.wait(30) == 0, shown
    assert b"got hello\r\n" in shown


def test_an_image_by_name_and_by_digest(machine, bare):
    """An image that was built runs from anywhere by its name, and by its digest."""
    digest = machine.build(bare, "-t", "me/shown:v1")
    for reference in ("me/shown:v1", digest):
        answer = machine.torchship("run", *NATIVE, reference, "--", "python", "-c", "print(6 * 7)")
        assert answer.out == "42\n", answer.err


def test_three_hundred_wheels_run(machine, bare):
    """Three hundred wheels make an image that runs, and every one can be imported."""
    names = [f"package-{number:03}" for number in range(300)]
    for name in names:
        machine.wheel(name)
    (bare / "requirements.txt").write_text("\n".join(names))
    (bare / "main.py").write_text(
        "import importlib\n"
        "print(sum(importlib.import_module(f'package_{n:03}').ANSWER for n in range(300)))\n"
    )
    (bare / "pyproject.toml").write_text('[tool.torchship]\nname = "many"\nbytecode = "none"\n')
    answer = machine.torchship("run", *NATIVE, bare)
    assert answer.out == f"{42 * 300}\n", answer.err
    assert len(layers(machine, "many")) <= 127


def test_bytecode_is_used(machine, bare):
    """A wheel's modules come with bytecode that Python takes without compiling."""
    machine.wheel("leaf")
    (bare / "requirements.txt").write_text("leaf\n")
    (bare / "main.py").write_text("import leaf\nprint(leaf.__cached__)\nimport os\n"
                                  "print(os.path.exists(leaf.__cached__))\n")  # fmt: skip
    answer = machine.torchship("run", *NATIVE, bare)
    cached, there = answer.out.split()
    assert cached.startswith("/opt/venv/lib/python3.11/site-packages/__pycache__/leaf.")
    assert there == "True"


@pytest.mark.slow
def test_another_store_gives_the_same_bytes(machine, bare, shared):
    """The real base, with its bytecode, is the same image in an empty store elsewhere."""
    (bare / "main.py").write_bytes((shared / "bare" / "main.py").read_bytes())
    first = machine.build(bare)
    other = machine.with_store("other").with_environment(
        TZ="Asia/Seoul", LC_ALL="C", PYTHONHASHSEED="3", TMPDIR=None
    )
    # the same files, so that they need not be fetched again
    shutil.copytree(shared / "store" / "downloads", other.home / "downloads")
    assert other.build(bare, umask=0o077) == first
    assert verify(other.home)


def _other_pythons() -> list[str]:
    """Return the Pythons of this machine that are not the one that runs the tests."""
    candidates = [f"python3.{minor}" for minor in (11, 12, 13, 14)]
    found = [path for name in candidates if (path := shutil.which(name))]
    found += map(str, sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3")))
    found.append("/usr/bin/python3")
    by_version = {}
    for path in found:
        asked = "import sys, venv; print(sys.version.split()[0], sys.version_info >= (3, 11))"
        answer = subprocess.run([path, "-c", asked], capture_output=True, text=True)
        version, fits = [*answer.stdout.split(), "", ""][:2]
        if fits == "True" and version != platform.python_version():
            by_version.setdefault(version, path)
    return list(by_version.values())


@pytest.mark.slow
def test_another_python_gives_the_same_bytes(machine, bare, shared, tmp_path):
    """Other Python versions build the same image, with bytecode of the same bytes."""
    others = _other_pythons()
    if not others:
        pytest.skip("this machine has one Python")
    machine.wheel("leaf", "1.0")
    (bare / "requirements.txt").write_text("leaf\n")
    first = machine.build(bare)
    for place, python in enumerate(others):
        venv = tmp_path / f"venv-{place}"
        made = subprocess.run([python, "-m", "venv", venv], capture_output=True)
        if made.returncode:
            continue  # Debian's own, where python3-venv is not installed
        install = [venv / "bin" / "python", "-m", "pip", "install", "-q", ROOT]
        subprocess.run(install, check=True)
        other = machine.with_store(f"store-{place}")
        shutil.copytree(shared / "store" / "downloads", other.home / "downloads")
        other = Machine(
            root=other.root, environment=other.environment, program=[venv / "bin" / "torchship"]
        )
        assert other.build(bare) == first, python
