"""Projects that would run code of theirs where they are resolved, with the real uv: none does.

Each form has a package whose build backend leaves a canary. It is at hand as a source archive in
a folder and as a folder of the project, and the project's own files ask for it to be built.
"""

from __future__ import annotations

import contextlib
import tarfile
from pathlib import Path

import pytest
from tests.wheels import make_wheel

from torchship.errors import ProjectError, ResolveError
from torchship.platform import Platform
from torchship.project.project import load
from torchship.project.target import Target
from torchship.project.wheels import locate, pin

AMD64 = Platform("linux", "amd64")
BACKEND = """\
from pathlib import Path
Path({canary!r}).write_text("a package's own code ran")
def refuse(*arguments, **settings):
    raise SystemExit(1)
build_wheel = build_editable = refuse
prepare_metadata_for_build_wheel = prepare_metadata_for_build_editable = refuse
"""
DYNAMIC = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "evil"
dynamic = ["version", "dependencies"]
"""
NEEDS = '[project]\nname = "mine"\nversion = "1"\ndependencies = ["evil"]\n'
ALLOWED = '[tool.uv.pip]\nonly-binary = [":none:"]\nno-binary = ["evil"]\n'
SOURCE = '[tool.uv.sources]\nevil = {path = "./evil", editable = true}\n'
LINKS = "--find-links ./shelf\n"

FORMS = {
    "an option of the file": {"requirements.txt": LINKS + "--no-binary evil\nevil\n"},
    "with an equals sign": {"requirements.txt": LINKS + "--no-binary=evil\nevil\n"},
    "nothing but wheels of nothing": {
        "requirements.txt": LINKS + "--only-binary :none:\n--no-binary :all:\nevil\n"
    },
    "behind another option": {"requirements.txt": "-f ./shelf --no-binary evil\nevil\n"},
    "behind a hash": {
        "requirements.txt": LINKS + f"evil --hash=sha256:{'0' * 64} --no-binary evil\n"
    },
    "in an included file": {
        "requirements.txt": LINKS + "-r more.txt\n",
        "more.txt": "--no-binary evil\nevil\n",
    },
    "in a constraints file": {
        "requirements.txt": LINKS + "-c more.txt\nevil\n",
        "more.txt": "--no-binary evil\n",
    },
    "a comment that goes on": {
        "requirements.txt": "-r more.txt\n",
        "more.txt": "evil # c \\\n-e ./evil\n",
        "pyproject.toml": ALLOWED,
    },
    "a comment that goes on, in the file itself": {
        "requirements.txt": "# c \\\n-e ./evil\nevil # c \\\n--no-binary evil\n",
        "pyproject.toml": ALLOWED,
    },
    "another end of a line": {
        "requirements.txt": LINKS + "# c\r--no-binary evil\r-e ./evil\nevil\n",
        "pyproject.toml": ALLOWED,
    },
    "a path that looks like a name": {
        "requirements.txt": "evil.tar.gz\n",
        "pyproject.toml": ALLOWED,
    },
    "uv.toml": {
        "requirements.txt": LINKS + "evil\n",
        "uv.toml": '[pip]\nonly-binary = [":none:"]\n',
    },
    "uv.toml, for one package": {
        "requirements.txt": LINKS + "evil\n",
        "uv.toml": 'no-binary-package = ["evil"]\n[pip]\nno-binary = ["evil"]\n',
    },
    "uv.toml, by a constraint": {
        "requirements.txt": LINKS + "evil\n",
        "uv.toml": 'constraint-dependencies = ["evil @ file:{root}/evil"]\n'
        '[pip]\nonly-binary = [":none:"]\n',
    },
    "tool.uv of requirements.txt": {
        "requirements.txt": LINKS + "evil\n",
        "pyproject.toml": ALLOWED,
    },
    "tool.uv of its own": {
        "pyproject.toml": NEEDS + '[tool.uv]\nfind-links = ["./shelf"]\n' + ALLOWED
    },
    "a source that is a path": {"pyproject.toml": NEEDS + ALLOWED + SOURCE},
    "a member of the workspace": {
        "pyproject.toml": NEEDS
        + ALLOWED
        + "[tool.uv.sources]\nevil = {workspace = true}\n[tool.uv.workspace]\nmembers = ['evil']\n"
    },
    "an extra of the project's own": {
        "pyproject.toml": NEEDS.replace('"evil"', '"mine[x]"')
        + '[project.optional-dependencies]\nx = ["evil"]\n'
        + '[tool.uv]\nfind-links = ["./shelf"]\n'
        + ALLOWED
        + SOURCE
    },
    "a marker of several lines": {
        "pyproject.toml": NEEDS.replace(
            '"evil"', "\"evil; platform_version != 'a\\n--no-binary evil\\n-e ./evil\\n'\""
        )
        + '[tool.uv]\nfind-links = ["./shelf"]\n'
    },
}


@pytest.fixture
def hostile(machine, monkeypatch, tmp_path):
    """Give a function that writes a hostile project, and the canary that is its code's trace."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    root, canary = tmp_path / "project", tmp_path / "canary"

    def write(files):
        (root / "evil").mkdir(parents=True)
        (root / "shelf").mkdir()
        (root / "main.py").write_text("")
        (root / "evil" / "pyproject.toml").write_text(DYNAMIC)
        (root / "evil" / "backend.py").write_text(BACKEND.format(canary=str(canary)))
        for archive in (root / "shelf" / "evil-1.0.tar.gz", root / "evil.tar.gz"):
            with tarfile.open(archive, "w:gz") as writer:
                writer.add(root / "evil", "evil-1.0")
        for name, text in files.items():
            (root / name).write_bytes(text.replace("{root}", str(root)).encode())
        return root

    return write, canary


def resolve(root: Path):
    """Resolve a project as `lock` does."""
    project = load(root)
    target = Target.of(AMD64, "3.11.2", project.base)
    return pin(project, target, preferred={}, measure=len)


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_a_project_has_its_code_run(hostile, form):
    """Whatever its files say, it is refused, or has no wheel."""
    write, canary = hostile
    root = write(FORMS[form])
    with pytest.raises(ProjectError) as caught:
        resolve(root)
    assert not canary.exists()
    assert caught.value.hint or "is not a requirement" in str(caught.value)


def test_folders_above_say_nothing(hostile, monkeypatch):
    """Neither those above the project nor those above where uv starts, which anybody may write."""
    write, canary = hostile
    root = write({"pyproject.toml": NEEDS + '[tool.uv]\nfind-links = ["./shelf"]\n'})
    above = '[tool.uv.workspace]\nmembers = ["*", "*/*"]\n' + ALLOWED
    above += f'[tool.uv.sources]\nevil = {{path = "{root}/evil", editable = true}}\n'
    (root.parent / "pyproject.toml").write_text(above)
    (root.parent / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(root.parent / "temporary"))
    with pytest.raises(ResolveError, match=r"evil==1\.0 has no wheel"):
        resolve(root)
    assert not canary.exists()


@pytest.mark.parametrize("variable", ["UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE"])
def test_a_file_that_the_user_names_is_read_as_the_projects_are(hostile, monkeypatch, variable):
    """A relative name in the user's environment may be that of a file of the project's."""
    write, canary = hostile
    root = write({"requirements.txt": LINKS + "evil\n", "limits.txt": "--no-binary evil\n"})
    monkeypatch.chdir(root)
    monkeypatch.setenv(variable, "limits.txt")
    with pytest.raises(ProjectError, match=r"limits\.txt, line 1: --no-binary asks for a build"):
        resolve(root)
    assert not canary.exists()


def test_the_users_own_settings_build_nothing_either(hostile, monkeypatch, machine):
    """They are for packages that the user trusts, and a project is anybody's."""
    write, canary = hostile
    root = write({"requirements.txt": LINKS + "evil\n"})
    (machine / ".config" / "uv").mkdir(parents=True)
    (machine / ".config" / "uv" / "uv.toml").write_text(
        'no-binary-package = ["evil"]\n[pip]\nonly-binary = [":none:"]\n'
    )
    for name in ("UV_NO_BINARY", "UV_NO_BUILD"):
        monkeypatch.setenv(name, str(int(name == "UV_NO_BINARY")))
    with pytest.raises(ResolveError, match=r"evil==1\.0 has no wheel"):
        resolve(root)
    assert not canary.exists()


def test_looking_for_pinned_files_builds_nothing(hostile):
    """A build of an image whose lock is there asks uv, too, where a file is now."""
    write, canary = hostile
    root = write({"requirements.txt": LINKS + "evil\n"})
    make_wheel(root / "shelf", "evil", "1.0")
    found = resolve(root)
    next((root / "shelf").glob("*.whl")).unlink()
    (root / "pyproject.toml").write_text(NEEDS + ALLOWED + SOURCE)
    (root / "uv.toml").write_text('[pip]\nonly-binary = [":none:"]\n')
    assert locate(found, AMD64, "3.11.2", project=load(root)) == {}
    (root / "requirements.txt").write_text(LINKS + "evil\n--no-binary evil\n")
    with contextlib.suppress(ProjectError):
        locate(found, AMD64, "3.11.2", project=load(root))
    assert not canary.exists()
