"""The command line as users meet it: processes, exit codes, and what they say.

Everything here happens on a machine of the test's own (see `tests/machine.py`), without a
network. Whatever is asked of it, no command ever shows a traceback: `Machine` checks that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from tests.integration import proxy as faults
from tests.machine import PLAIN, debian_packages, equipped, layers, machine, verify
from tests.wheels import make_wheel

from torchship.cli import torchship
from torchship.digest import Digest
from torchship.project import lock as lockfile
from torchship.project import lockcheck
from torchship.runs.run import RecordDirectory

__all__ = ["debian_packages", "machine"]

COMMANDS = sorted(torchship.list_commands(None))


# -- help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_shows_an_example(command):
    """A newcomer copies the example and edits it."""
    shown = CliRunner().invoke(torchship, [command, "--help"]).output
    assert f"Example:\n    torchship {command}" in shown


def test_help_imports_little():
    """`torchship --help` starts in no time, since it reads nothing that it does not need."""
    code = (
        "import sys, torchship.cli; print(*(name for name in "
        "('rich', 'urllib3', 'msgspec', 'packaging', 'zstandard', 'subprocess', 'ssl') "
        "if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_build_of_an_edit_imports_little(machine):
    """To build after an edit of the code, nothing is imported that only other builds need."""
    project = machine.project(requirements__txt="other\nleaf==1.0\n")
    machine.build(project)
    (project / "main.py").write_text("print('edited')\n")
    unneeded = (
        *("asyncio", "concurrent.futures", "email", "http", "importlib.metadata", "logging"),
        *("multiprocessing", "packaging", "rich", "shutil", "socket", "ssl", "subprocess"),
        *("tarfile", "tempfile", "tomli_w", "urllib3", "zipfile"),
    )
    code = (
        "import sys, torchship.cli\n"
        "try: torchship.cli.main()\n"
        f"finally: print(*(name for name in {unneeded} if name in sys.modules))"
    )
    edited = replace(machine, program=(sys.executable, "-c", code)).torchship("build", project)
    assert edited.out.splitlines()[1:] == [""]


def test_unknown_words_are_usage_errors(machine):
    """A command or an option that does not exist gives exit code 2 and names it."""
    for words in (["bogus"], ["build", "--bogus"], ["run"], ["save", "x"]):
        answer = machine.torchship(*words)
        assert answer.status == 2
        assert "Usage:" in answer.err
        assert answer.out == ""


# -- the usual way


def test_from_a_directory_to_an_image(machine, tmp_path):
    """A directory is locked and built; the image is listed, inspected, saved, loaded, removed."""
    project = machine.project("mnist", requirements__txt="other\n")
    digest = machine.build(project, "-t", "me/mnist:v0.1")
    assert (project / "torchship.lock").is_file()
    (row,) = json.loads(machine.torchship("images", "--json").out)
    assert (row["name"], row["digest"]) == ("me/mnist:v0.1", digest)
    assert "me/mnist:v0.1" in machine.torchship("images").out
    found = layers(machine, "me/mnist:v0.1")
    assert found[0]["title"].startswith("debian:bookworm")
    assert sum(layer["share"] for layer in found) == pytest.approx(1, abs=0.01)
    assert "leaf 1.0" in machine.torchship("inspect", digest).out

    assert machine.torchship("save", "me/mnist:v0.1", "-o", tmp_path / "a.tar").status == 0
    elsewhere = machine.with_store("elsewhere")
    assert digest in elsewhere.torchship("load", tmp_path / "a.tar").out
    assert layers(elsewhere, "me/mnist:v0.1") == found

    assert machine.torchship("rmi", "me/mnist:v0.1").status == 0
    assert json.loads(machine.torchship("images", "--json").out) == []
    assert "of downloads stay" in machine.torchship("prune").err
    freed = machine.torchship("prune", "--downloads").err
    assert freed.startswith("freed ")
    assert "stay" not in freed
    assert verify(machine.home) == 0
    assert machine.build(project) == digest


def test_no_settings_at_all(machine):
    """A directory with main.py alone, and no table anywhere, is a project."""
    project = machine.project("plain", settings="")
    answer = machine.torchship("lock", project)
    assert answer.status == 0, answer.err
    assert answer.out == f"{project}/torchship.lock\n"


def test_init_writes_the_defaults(machine):
    """`init` writes settings that mean what having none means; a second `init` refuses."""
    project = machine.project(settings="")
    before = machine.torchship("lock", project)
    assert before.status == 0, before.err
    assert machine.torchship("init", project).status == 0
    assert "[tool.torchship]" in (project / "pyproject.toml").read_text()
    assert machine.torchship("lock", "--check", project).status == 0
    machine.torchship("init", project).fails("has a [tool.torchship] table already")


def test_an_edit_changes_one_layer(machine):
    """An edited line makes the last layer anew, and no other."""
    project = machine.project(requirements__txt="other\n")
    machine.build(project)
    before = layers(machine, "project")
    (project / "main.py").write_text("print('edited')\n")
    machine.build(project)
    after = layers(machine, "project")
    assert [one["digest"] for one in before[:-1]] == [one["digest"] for one in after[:-1]]
    assert before[-1]["digest"] != after[-1]["digest"]


def test_two_platforms_make_one_index(machine):
    """Both platforms are built on either machine, and one reference names them."""
    project = machine.project(requirements__txt="other\n")
    both = ("--platform", "linux/arm64", "--platform", "linux/amd64")
    digest = machine.build(project, *both, "-t", "me/both")
    found = json.loads(machine.torchship("inspect", "me/both", "--json").out)
    assert [one["platform"] for one in found] == ["linux/arm64", "linux/amd64"]
    document = json.loads((machine.home / "oci/blobs/sha256" / digest.split(":")[1]).read_bytes())
    assert document["mediaType"] == "application/vnd.oci.image.index.v1+json"
    # one wheel is one layer: pure ones are shared by the platforms
    shared = [{layer["digest"] for layer in one["layers"]} for one in found]
    assert len(shared[0] & shared[1]) >= 2


def test_docker_manifests(machine):
    """`--docker` writes schema 2, which old tools read."""
    digest = machine.build(machine.project(), "--docker")
    document = json.loads((machine.home / "oci/blobs/sha256" / digest.split(":")[1]).read_bytes())
    assert document["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"


def test_doctor_looks_at_everything(machine):
    """`doctor` tells of the store, apt, the engines and the mirrors, and how to mend them."""
    told = machine.with_environment(TORCHSHIP_MIRRORS="/nowhere").torchship("doctor").out
    for subject in ("python", "store", "debian packages", "native engine", "docker", "mirrors"):
        assert re.search(rf"^(ok|no|--)  {subject}: ", told, re.M), told
    assert "--  mirrors: TORCHSHIP_MIRRORS names /nowhere" in told
    bare = machine.with_environment(PATH="/nowhere").torchship("doctor").out
    assert "no  docker: not installed; not needed" in bare and "ok  python: " in bare


# -- registries


def test_a_login_without_a_terminal_asks_for_nothing(machine):
    """It says which option takes the password."""
    machine.torchship("login", "127.0.0.1:1", "-u", "me").fails(
        "no terminal to ask for the password", "--password-stdin", status=2
    )


def test_tags_that_list_records_are_no_images(machine):
    """`tags` leaves out those of the referrers tag schema; `--all` shows them."""
    fallback = f"sha256-{'a' * 64}"
    body = json.dumps({"tags": ["v1", fallback, "sha256-short"]}).encode()
    with faults.running() as server:
        server.on("GET", "/v2/me/x/tags/list", faults.answered(200, {}, body), times=-1)
        name = f"{server.host}/me/x"
        assert machine.torchship("tags", name).out.split() == ["sha256-short", "v1"]
        assert fallback in machine.torchship("tags", "--all", name).out.split()


# -- faulty projects


def test_no_main(machine):
    """Without main.py, and without another command, there is nothing to run."""
    project = machine.project()
    (project / "main.py").unlink()
    machine.torchship("build", project).fails("has no main.py", "`command`")
    machine.torchship("run", project).fails("has no main.py", status=125)


def test_no_directory(machine):
    """A directory that is not there is named."""
    machine.torchship("build", "nowhere").fails("nowhere is not a directory")
    machine.torchship("run", "./nowhere").fails("there is no directory ./nowhere", status=2)


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        ("nothing-here\n", ["no index has a package nothing-here"]),
        ("leaf==2\nother\n", ["do not resolve", "leaf==2"]),
        ("sealed\n", ["sealed==1.0 has no wheel for linux/amd64, Python 3.11", "pip wheel"]),
        ("leaf >>> 3\n", ["requirements.txt, line 1", "is not a requirement"]),
        ("-e ./other\n", ["requirements.txt, line 1", "editable"]),
        ("-e .\n", ["requirements.txt, line 1", "only a build of the project could tell"]),
        ("leaf\n--no-binary leaf\n", ["requirements.txt, line 2", "asks for a build"]),
    ],
    ids=["unknown", "conflict", "only an sdist", "syntax", "editable", "itself", "a build"],
)
def test_requirements_that_do_not_resolve(machine, requirements, words):
    """What cannot be installed is named, with the line or the reason, and no lock is left."""
    (machine.shelf / "sealed-1.0.tar.gz").write_bytes(b"only source")
    project = machine.project(requirements__txt=requirements)
    machine.torchship("build", project).fails(*words)
    assert not (project / "torchship.lock").exists()


def test_faulty_settings_are_told_at_once(machine):
    """All faults of the table come together, with their paths and what was meant."""
    project = machine.project(settings="nam = 3\ncommand = []\n")
    machine.torchship("build", project).fails(
        "2 faulty settings", "tool.torchship.nam: ", "did you mean 'name'?", "command", status=2
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".env", "AWS_SECRET_ACCESS_KEY=abcdefghijklmnopqrstuvwxyz0123456789abcd\n"),
        ("id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA\n"),
        ("notes.txt", "ghp_" + "a1B2c3D4e5F6" * 3 + "\n"),
    ],
)
def test_secrets_stop_the_build(machine, name, content):
    """A file that looks like a secret is named, and so is the way to allow it."""
    project = machine.project()
    (project / name).write_text(content)
    machine.torchship("build", project).fails(name, ".dockerignore", "allow")
    assert json.loads(machine.torchship("images", "--json").out) == []
    (project / "pyproject.toml").write_text(f'[tool.torchship]\n{PLAIN}allow = ["{name}"]\n')
    machine.build(project)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["-e", "x"], "NAME=VALUE"),
        (["-v", "x"], "SRC:DST"),
        (["-v", "/nowhere:/x"], "there is no /nowhere"),
        (["--memory", "much"], "not an amount of memory"),
        (["--memory", "inf"], "not an amount of memory"),
        (["--memory", "0"], "not an amount of memory"),
        (["--platform", "windows"], "platform 'windows'"),
        (["-t"], "not a terminal"),
    ],
)
def test_faulty_arguments_of_run(machine, words, fault):
    """What `run` cannot make sense of is told before anything is built."""
    project = machine.project()
    machine.torchship("run", *words, project).fails(fault, status=2)
    assert not (project / "torchship.lock").exists()


def test_a_platform_that_cannot_be_run_is_refused_first(machine):
    """Nothing is locked, fetched or built for another machine's processors."""
    project = machine.project()
    other = "linux/arm64" if os.uname().machine == "x86_64" else "linux/amd64"
    words = ("--engine", "native", "--platform", other)
    machine.torchship("run", project, *words).fails(f"runs nothing for {other}", status=125)
    assert not (project / "torchship.lock").exists()


@pytest.mark.parametrize(("folder", "fault"), [(".", "is not empty"), ("", "names no directory")])
def test_a_run_directory_that_holds_other_things_is_refused(machine, folder, fault):
    """A run is never strewn over a project."""
    project = machine.project()
    machine.torchship("run", "-o", folder, ".", cwd=project).fails(fault, status=2)
    assert [path.name for path in sorted(project.iterdir())] == ["main.py", "pyproject.toml"]


def test_a_mistyped_directory_is_no_strangers_image(machine):
    """A bare name is never pulled; the message says how an image of Docker Hub is named."""
    said = machine.torchship("run", "misc").fails("neither a directory misc", status=2)
    assert "docker.io/library/misc" in said


def test_a_name_that_is_nearly_an_images_is_answered_with_it(machine):
    """A directory's own name is not always its image's; whoever builds it is told what that is."""
    project = machine.project("time_sequence")
    machine.build(project)
    machine.torchship("run", "time_sequences").fails("the store has time-sequence;", status=2)
    machine.torchship("inspect", "time_sequence").fails("there is time-sequence;")
    said = "the image is called project-59a4e313"
    other = machine.project("실험")
    assert said in machine.torchship("build", other).err
    assert said not in machine.torchship("build", other).err
    assert said not in machine.torchship("build", other, "-t", "named").err


def test_options_of_the_program_go_behind_dashes(machine):
    """Whoever forgets them is told."""
    answer = machine.torchship("run", machine.project(), "--epochs", "1")
    assert answer.status == 2
    assert "behind `--`: torchship run DIR -- python main.py --epochs 1" in answer.err


def test_a_run_that_cannot_start_leaves_no_directory(machine):
    """Neither does it need a main.py, where it is told what to run."""
    project = machine.project()
    (project / "main.py").rename(project / "train.py")
    machine.torchship("run", project).fails("has no main.py", status=125)
    answer = machine.torchship("run", "--engine", "native", project, "--", "python", "train.py")
    assert answer.status == 125
    assert "no main.py" not in answer.err
    assert "project:latest linux/" in answer.err  # it was built, and what it is called is told
    assert not list(machine.root.glob("runs/*"))


def test_results_that_stay_out_are_told(machine):
    """A program may read what stands in a folder of results."""
    project = machine.project()
    (project / "outputs").mkdir()
    (project / "outputs" / "pretrained.pt").write_bytes(b"weights")
    told = (
        "outputs/ is left out of the image (results); write `outputs` into .dockerignore to "
        "settle that, or `!outputs` to take it in"
    )
    assert told in machine.torchship("build", project).err
    (project / ".dockerignore").write_text("!outputs\n")
    assert "left out" not in machine.torchship("build", project).err


def test_folders_of_results_share_a_line(machine):
    """However many a project has, one line is enough; torchship's own runs are no news."""
    project = machine.project()
    for name in ("outputs", "wandb"):
        (project / name).mkdir()
        (project / name / "a").touch()
    RecordDirectory.create(project / "runs", Digest.of(b""), datetime.now(UTC))
    said = [line for line in machine.torchship("build", project).err.splitlines() if "left" in line]
    assert len(said) == 1
    assert said[0].startswith("outputs/, wandb/ are left out of the image (results); write each")


def test_caches_that_stay_out_are_told(machine):
    """A model that a program downloaded into the project lies in a folder marked as a cache."""
    project = machine.project()
    (project / "models").mkdir()
    tag = "Signature: 8a477f597d28d172789f06886806bc55\n"
    (project / "models" / "CACHEDIR.TAG").write_text(tag)
    assert "models/ stays out of the image" in machine.torchship("build", project).err
    (project / ".dockerignore").write_text("!models\n")
    assert "stays out" not in machine.torchship("build", project).err


def test_large_files_in_the_source_are_told(machine):
    """As an archive that `save` left there; once, and not where .dockerignore names it."""
    project = machine.project()
    with (project / "image.tar").open("wb") as stream:
        stream.truncate(64 << 20)
    assert "image.tar (67.1 MB); .dockerignore" in machine.torchship("build", project).err
    assert "image.tar" not in machine.torchship("build", project).err
    (project / ".dockerignore").write_text("*.tar\n")
    assert "image.tar" not in machine.torchship("build", project).err


def test_faulty_variables(machine):
    """A variable that torchship cannot make sense of is named."""
    project = machine.project()
    for name, value in (("TORCHSHIP_MIRRORS", "/nowhere"), ("SOURCE_DATE_EPOCH", "today")):
        machine.with_environment(**{name: value}).torchship("build", project).fails(name, status=2)


def test_images_that_are_not_there(machine, tmp_path):
    """A name that the store does not know, and an archive that is none, are told plainly."""
    for words in (["inspect", "nope"], ["rmi", "nope"], ["push", "nope"], ["save", "nope", "-ox"]):
        machine.torchship(*words).fails("the store holds no image nope", "`torchship images`")
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    machine.torchship("load", "junk").fails("junk")
    machine.torchship("load", "nothing").fails("nothing")
    machine.torchship("build", machine.project(), "-t", "NOT it").fails("NOT it", status=2)


# -- locks


def test_a_stale_lock_is_told_and_mended(machine):
    """`--check` exits with 1 and says what changed; `build` resolves again, keeping old pins."""
    project = machine.project(requirements__txt="leaf\n")
    machine.torchship("lock", "--check", project).fails("there is no torchship.lock")
    assert machine.torchship("lock", project).status == 0
    assert machine.torchship("lock", "--check", project).status == 0
    machine.wheel("leaf", "2.0")
    (project / "requirements.txt").write_text("leaf\nother\n")
    before = (project / "torchship.lock").read_bytes()
    answer = machine.torchship("lock", "--check", project)
    assert answer.status == 1
    assert answer.out == "requirements.txt changed\n"
    assert "is stale: run torchship lock" in answer.err
    assert (project / "torchship.lock").read_bytes() == before
    assert "requirements.txt changed" in machine.torchship("build", project).err
    assert "leaf-1.0-py3" in (project / "torchship.lock").read_text()
    answer = machine.torchship("lock", "--upgrade", project)
    assert answer.status == 0
    assert "linux/amd64: leaf 1.0 -> 2.0\n" in answer.err
    assert "leaf-2.0-py3" in (project / "torchship.lock").read_text()
    again = machine.torchship("lock", "--upgrade", project).err
    assert "->" not in again and "added" not in again, "nothing changed"


DAMAGES = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "binary": lambda text: "\0\1",
    "another sha256": lambda text: re.sub(r'(sha256 = ")\w{4}', r"\g<1>0000", text, count=1),
    "another version": lambda text: text.replace("3.11.2", "3.11.9"),
    "no sha256": lambda text: re.sub(r'sha256 = "\w+"', 'sha256 = ""', text, count=1),
    "a path": lambda text: text.replace('"leaf-1.0-py3', '"../leaf-1.0-py3'),
    "another platform, by hand": lambda text: text.replace("linux/amd64", "linux/arm64"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, debian_packages) -> str:
    """Return the lock of a project that requires a leaf."""
    machine = equipped(tmp_path_factory.mktemp("locked"), debian_packages)
    project = machine.project(requirements__txt="leaf\n")
    assert machine.torchship("lock", project).status == 0
    return (project / "torchship.lock").read_text()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_lock_is_refused(machine, damage, whole):
    """A lock that was cut off or edited is never built from; `torchship lock` mends it."""
    project = machine.project(requirements__txt="leaf\n")
    path = project / "torchship.lock"
    damaged = DAMAGES[damage](whole)
    assert damaged != whole
    path.write_text(damaged)
    machine.torchship("build", project).fails("torchship.lock is", "run `torchship lock`")
    machine.torchship("lock", "--check", project).fails("torchship.lock is")
    assert path.read_text() == damaged
    assert "torchship.lock is" in machine.torchship("lock", project).err
    assert machine.torchship("lock", "--check", project).status == 0


def test_what_a_strangers_lock_says_is_one_line_each(machine):
    """A lock comes with a project from elsewhere: its words do not steer the terminal."""
    project = machine.project(requirements__txt="leaf\n")
    assert machine.torchship("lock", project).status == 0
    path = project / "torchship.lock"
    lock = lockfile.load(path)
    edited = {**lock.resolved_from, "base": "a\x1b[2J\nit fits"}
    digest = lockcheck.inputs(edited)
    lockfile.save(msgspec.structs.replace(lock, resolved_from=edited, inputs=digest), path)
    told = f"base a\ufffd[2J it fits -> {lock.resolved_from['base']}"
    assert machine.torchship("lock", "--check", project).out == f"{told}\n"
    said = machine.torchship("build", project).err
    assert f"torchship.lock is stale ({told}): resolving\n" in said


def test_a_lock_for_another_platform(machine):
    """A lock that lacks a platform says so; a build for it adds it, and keeps what was there."""
    project = machine.project(requirements__txt="leaf\n")
    assert machine.torchship("lock", project, "--platform", "linux/arm64").status == 0
    answer = machine.torchship("lock", "--check", project)
    assert (answer.status, answer.out) == (1, "linux/amd64 is not locked\n")
    machine.build(project)
    text = (project / "torchship.lock").read_text()
    assert "linux/arm64" in text and "linux/amd64" in text


# -- what comes from outside


def test_a_wheel_of_other_bytes(machine):
    """An index that serves a pinned name with other bytes is refused, and nothing is built."""
    project = machine.project(requirements__txt="leaf\n")
    assert machine.torchship("lock", project).status == 0
    path = machine.shelf / "leaf-1.0-py3-none-any.whl"
    honest = path.read_bytes()
    path.write_bytes(honest.replace(b"METADATA", b"METADATB"))
    machine.torchship("build", project).fails("leaf-1.0-py3-none-any.whl", "the lock's sha256")
    assert json.loads(machine.torchship("images", "--json").out) == []
    path.write_bytes(honest)
    machine.build(project)


def _other_crc(data: bytes) -> bytes:
    at = data.index(b"PK\x01\x02") + 16
    return data[:at] + bytes(byte ^ 1 for byte in data[at : at + 4]) + data[at + 4 :]


LIES = {
    "crc": ({"liar.py": b"A = 1\n"}, _other_crc),
    "..": ({"../../escaped.py": b"A = 1\n"}, None),
    "absolute": ({"/etc/passwd": b"root::0:0:::\n"}, None),
    "cut off": ({"liar.py": b"A = 1\n"}, lambda data: data[:-9]),
    "no zip": ({"liar.py": b"A = 1\n"}, lambda data: b"\x7fELF" + data[4:100]),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_wheel_that_lies(machine, lie, tmp_path):
    """A wheel that breaks its format's rules is neither locked nor built, and is named."""
    files, change = LIES[lie]
    honest = machine.wheel("liar", "1.0")
    project = machine.project(requirements__txt="liar\n")
    assert machine.torchship("lock", project).status == 0
    liar = make_wheel(tmp_path / "other", "liar", "1.0", files)
    if change is not None:
        liar.write_bytes(change(liar.read_bytes()))
    shutil.copyfile(liar, honest)
    (project / "torchship.lock").unlink()  # a new one has the liar's sha256
    said = machine.torchship("build", project).fails("liar-1.0-py3-none-any.whl", "fetch it again")
    assert "Error" not in said
    assert json.loads(machine.torchship("images", "--json").out) == []


def test_three_hundred_wheels(machine):
    """Far more wheels than an image may have layers share layers, within Docker's limit."""
    names = [f"package-{number:03}" for number in range(300)]
    for name in names:
        machine.wheel(name)
    project = machine.project(requirements__txt="\n".join(names))
    machine.build(project)
    assert len(layers(machine, "project")) <= 127


# -- the same bytes


def _write_tree(root: Path, names: list[str]) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")


NAMES = [f"package{n}/sub/module{m}.py" for n in (3, 1, 2) for m in (2, 1)] + ["zeta.py", "Alpha"]


def test_the_same_bytes_everywhere(machine, tmp_path):
    """HOME, umask, TZ, LC_ALL, clock, path, file order, times and file system change no byte."""
    settings = f'{PLAIN}name = "same"\n'
    here = machine.project("here", settings=settings, requirements__txt="other\n")
    _write_tree(here, NAMES)
    first = machine.build(here)

    memory = Path("/dev/shm")
    folder = memory if memory.is_dir() and os.access(memory, os.W_OK) else tmp_path
    far = folder / f"torchship-test-{os.getpid()}" / "다른 곳"
    try:
        far.mkdir(parents=True)
        old = os.umask(0o077)
        try:
            _write_tree(far, NAMES[::-1])
            for name in ("main.py", "pyproject.toml", "requirements.txt", "torchship.lock"):
                (far / name).write_bytes((here / name).read_bytes())
        finally:
            os.umask(old)
        for path in far.rglob("*"):
            os.utime(path, (1, 10**9))
        # Python starts with this clock: ten years on, and running backwards
        (tmp_path / "clock").mkdir()
        (tmp_path / "clock" / "sitecustomize.py").write_text(
            "import time; real = time.time; began = real(); "
            "time.time = lambda: began + 315576000 - (real() - began)\n"
        )
        other = machine.with_environment(
            HOME=folder,
            TZ="Asia/Seoul",
            LC_ALL="tr_TR.UTF-8",
            LANG=None,
            PYTHONPATH=tmp_path / "clock",
            PYTHONHASHSEED="7",
            TMPDIR=folder,
            TORCHSHIP_HOME=far.parent / "store",
        )
        assert other.build(".", cwd=far, umask=0o077) == first
        assert other.with_environment(SOURCE_DATE_EPOCH="1700000000").build(far) != first
    finally:
        shutil.rmtree(far.parent)


def test_builds_at_once(machine):
    """Builds that share an empty store at the same time give the same image."""
    project = machine.project(requirements__txt="other\n")
    assert machine.torchship("lock", project).status == 0
    building = [machine.start("build", project) for _ in range(4)]
    answers = [process.communicate(timeout=120) for process in building]
    assert [process.returncode for process in building] == [0] * 4, answers
    assert len({out for out, _ in answers}) == 1
    assert verify(machine.home)


# -- builds that come to harm


def _large(machine) -> Path:
    """Make a project whose layers take a while."""
    noise = {f"large/{n}.bin": os.urandom(300_000) for n in range(10)}
    machine.wheel("large", "1.0", noise)
    machine.wheel("larger", "1.0", {"larger/a.bin": os.urandom(4_000_000)})
    return machine.project(requirements__txt="large\nlarger\nother\n")


def _kill_some(machine, times: int) -> None:
    project = _large(machine)
    began = time.monotonic()
    whole = machine.build(project)
    usual = time.monotonic() - began
    for turn in range(times):
        # every third on a store that has seen kills before
        trial = machine.with_store(f"killed-{turn // 3}")
        process = trial.start("build", project, start_new_session=True)
        # spread evenly over the build, whatever its phases
        time.sleep(usual * (turn + 0.5) / times)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if turn % 3 == 2 or turn == times - 1:
            assert trial.build(project) == whole
        if trial.home.exists():
            verify(trial.home)
            json.loads(trial.torchship("images", "--json").out)
    assert machine.build(project) == whole


def test_killed_builds(machine):
    """After kill -9 at any moment every blob is whole, and the next build gives the same image."""
    _kill_some(machine, 6)


@pytest.mark.slow
def test_fifty_killed_builds(machine):
    """The same, 50 times."""
    _kill_some(machine, 50)


def test_ctrl_c_ends_a_build_quietly(machine):
    """Ctrl-C gives exit code 130 and one word, and the next build goes on."""
    project = _large(machine)
    assert machine.torchship("lock", project).status == 0
    process = machine.start("build", project, start_new_session=True)
    # at work, however long a cold machine took to get there
    assert any(line.startswith("fetching") for line in process.stderr)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    if process.returncode != 0:  # a fast machine was done before
        assert process.returncode == 130
        assert "Traceback" not in err
        assert err.strip().splitlines()[-1] == "interrupted"
    machine.build(project)


def test_a_damaged_blob_is_made_again(machine):
    """A blob that rotted on disk is never used: the next build makes it anew."""
    project = machine.project(requirements__txt="other\n")
    digest = machine.build(project)
    for layer in layers(machine, "project"):
        path = machine.home / "oci/blobs/sha256" / layer["digest"].split(":")[1]
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        os.utime(path, (5, 5))
    again = machine.torchship("build", project)
    assert again.digest == digest
    assert again.err.count("was damaged") == len(layers(machine, "project"))
    verify(machine.home)


def ordinary(*command) -> list[str]:
    """Return a command whose rights are those of an ordinary user: root's files are not its own."""
    if os.geteuid() != 0:
        return list(command)
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", *command]


def _read_only(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)


def test_a_read_only_store(machine):
    """A store that cannot be written is read; what has to be written is refused by its path."""
    project = machine.project(requirements__txt="leaf\n")
    machine.build(project)
    listed = machine.torchship("images").out
    _read_only(machine.home)
    machine = type(machine)(
        root=machine.root, environment=machine.environment, program=ordinary(*machine.program)
    )
    try:
        assert machine.torchship("images").out == listed
        assert machine.torchship("inspect", "project").status == 0
        (project / "main.py").write_text("print('edited')\n")
        said = machine.torchship("build", project).fails(str(machine.home))
        assert "TORCHSHIP_HOME" in said
    finally:
        for path in (machine.home, *machine.home.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
    assert machine.torchship("images").out == listed


def in_namespaces(*script: str) -> list[str]:
    """Return a command that runs a shell script as root of namespaces of its own."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc", "\n".join(script)]
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    probe = subprocess.run([*command[:-1], "mount -t tmpfs x /mnt"], capture_output=True)
    if probe.returncode:
        pytest.skip(f"no user namespaces here: {probe.stderr.decode()}")
    return command


def test_a_full_disk(machine):
    """A build for which there is no room says so; given room, what it left is gone on with."""
    project = _large(machine)
    whole = machine.build(project)
    small = machine.with_store("small")
    small.home.mkdir()
    build = f'{sys.executable} -m torchship build "{project}"'
    done = subprocess.run(
        in_namespaces(
            f'mount -t tmpfs -o size=2500k none "{small.home}"',
            f"{build} && exit 99",
            'echo "status $?" >&2',
            f'cp -a "{small.home}" "{small.root}/larger"',
            f'TORCHSHIP_HOME="{small.root}/larger" {build}',
        ),
        env=dict(small.environment),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == whole
    assert "status 1" in done.stderr
    assert "Traceback" not in done.stderr
    refused = done.stderr.split("status 1")[0]
    assert "no space is left on the disk" in refused, refused
    assert "free some space" in refused, refused


def test_a_machine_without_user_namespaces(machine):
    """Where the kernel forbids them, the native engine says so, and who can run the image."""
    project = machine.project()
    done = subprocess.run(
        in_namespaces(
            "echo 0 > /proc/sys/user/max_user_namespaces",
            f'{sys.executable} -m torchship build "{project}"',
            f'exec {sys.executable} -m torchship run --engine native "{project}"',
        ),
        env=dict(machine.environment),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 125
    assert done.stdout.startswith("sha256:")  # building needs none
    assert "user.max_user_namespaces is 0" in done.stderr
    assert "docker load" in done.stderr and "podman load" in done.stderr
    assert "Traceback" not in done.stderr


# -- the model Dockerfile


def test_a_dockerfile_goes_to_standard_output_or_into_a_file(machine, tmp_path):
    """The text alone is the answer; a file that says something else stays as it is."""
    project = machine.project(requirements__txt="leaf\n")
    shown = machine.torchship("dockerfile", project).out
    assert shown.endswith('CMD ["python", "main.py"]\n')
    path = tmp_path / "Dockerfile"
    for _ in range(2):
        assert machine.torchship("dockerfile", project, "-o", path).out == f"{path}\n"
        assert path.read_text() == shown
    path.write_text("FROM mine\n")
    machine.torchship("dockerfile", project, "-o", path).fails("is there already")
    assert path.read_text() == "FROM mine\n"


def test_all_platforms_leave_nothing_to_choose(machine):
    """`pull --all-platforms` with a choice is a contradiction, told before anything is asked."""
    for choice in ("--variant=cpu", "--platform=linux/amd64"):
        machine.torchship("pull", "h.invalid/x", "--all-platforms", choice).fails(
            "--all-platforms takes all", status=2
        )
