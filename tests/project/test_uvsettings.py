"""What is followed of uv's own settings, the project's and the user's."""

from __future__ import annotations

import tomllib

import pytest
from tests.wheels import make_index, make_wheel

from torchship.errors import ProjectError, UsageError
from torchship.platform import Platform
from torchship.project import question, uvsettings
from torchship.project.overlooked import overlooked
from torchship.project.requirements import read
from torchship.project.target import Target
from torchship.project.wheels import locate, pin

AMD64 = Platform("linux", "amd64")
NEEDS = '[project]\nname = "mine"\ndependencies = [{}]\n'


@pytest.fixture
def user(machine):
    """Give a function that writes the user's uv.toml."""
    path = machine / ".config" / "uv" / "uv.toml"
    path.parent.mkdir(parents=True)
    return path.write_text


def versions(project):
    """Resolve a project; return what was pinned, in short."""
    target = Target.of(AMD64, "3.11.2", project.base)
    found = pin(project, target, preferred={}, measure=len)
    assert len(locate(found, AMD64, "3.11.2", project=project)) == len(found)
    return [f"{one.name} {one.version}" for one in found]


@pytest.fixture
def indexes(machine, monkeypatch, tmp_path):
    """Give three indexes that are all there is: leaf 1.0 is in the first, 2.0 in the last."""
    monkeypatch.setenv("PIP_INDEX_URL", make_index(tmp_path / "none", []))
    wheels = [make_wheel(tmp_path / v, "leaf", v) for v in ("1.0", "1.5", "2.0")]
    return [make_index(tmp_path / f"index-{one.parent.name}", [one]) for one in wheels]


@pytest.mark.parametrize(
    "settings",
    [
        '[[tool.uv.index]]\nname = "own"\nurl = "{0}"\n',
        '[tool.uv]\nextra-index-url = ["{0}"]\n',
        '[tool.uv]\nfind-links = ["./wheels"]\n',
        '[tool.uv.pip]\nextra-index-url = ["{0}"]\n',
        '[tool.uv]\nextra-index-url = ["{0}", "{2}"]\nconstraint-dependencies = ["leaf<2"]\n',
        '[tool.uv]\nextra-index-url = ["{0}", "{2}"]\nresolution = "lowest"\n',
    ],
)
@pytest.mark.parametrize("where", ["pyproject.toml", "requirements.txt", "uv.toml"])
def test_a_projects_indexes_and_versions_are_followed(indexes, project, where, settings):
    """Wherever uv would take them from, paths starting at the project."""
    settings = settings.format(*indexes)
    if where == "pyproject.toml":
        found = project(NEEDS.format('"leaf"') + settings)
    elif where == "requirements.txt":
        found = project(settings, requirements__txt="leaf\n")
    else:
        plain = settings.replace("[tool.uv.pip]", "[pip]").replace("[tool.uv]\n", "")
        plain = plain.replace("[[tool.uv.index]]", "[[index]]")
        found = project("[tool.uv]\nno-index = true\n", requirements__txt="leaf\n", uv__toml=plain)
    make_wheel(found.root / "wheels", "leaf", "1.0")
    assert versions(found) == ["leaf 1.0"]


def test_an_index_that_a_source_names_is_the_one(indexes, project):
    """Also one that is for nothing else, and of several the one that is for Linux."""
    text = NEEDS.format('"Leaf"') + '[[tool.uv.index]]\nname = "mine"\nurl = "../index-1.5"\n'
    text += f'explicit = true\n[[tool.uv.index]]\nurl = "{indexes[2]}"\n'
    assert versions(project(text + '[tool.uv.sources]\nleaf = { index = "mine" }\n')) == [
        "leaf 1.5"
    ]
    several = (
        '[tool.uv.sources]\nleaf = [{ path = "./leaf", marker = "sys_platform == \'darwin\'" }, '
        '{ index = "mine", marker = "sys_platform == \'linux\'" }]\nother = { git = "x" }\n'
    )
    assert versions(project(text + several)) == ["leaf 1.5"]
    assert versions(project(text + "[tool.uv]\nno-sources = true\n" + several)) == ["leaf 2.0"]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ('{ path = "./leaf" }', "a local path"),
        ('{ path = "./leaf", editable = true }', "a local path"),
        ('{ git = "https://user:secret@h.invalid/leaf" }', "a source repository"),
        ('{ url = "https://h.invalid/leaf.whl" }', "an address"),
        ("{ workspace = true }", "the workspace"),
        ("[{ workspace = true, marker = \"sys_platform == 'linux'\" }]", "the workspace"),
        ("{ later = true }", "an unknown source"),
    ],
)
def test_a_source_that_is_built_is_refused(project, source, kind):
    """It would be something else that is resolved: the error says what to do."""
    found = project(NEEDS.format('"six", "leaf"') + f"[tool.uv.sources]\nleaf = {source}\n")
    said = rf"project\.dependencies\[1\]: \[tool\.uv\.sources\] takes leaf from {kind}"
    with pytest.raises(ProjectError, match=said) as caught:
        read(found)
    assert "find-links" in caught.value.hint


def test_sources_of_what_is_not_asked_for_do_no_harm(project):
    """Of extras, groups and other files' requirements."""
    sources = '[tool.uv.sources]\nother = { path = "x" }\nsix = { git = "x", extra = "e" }\n'
    assert read(project(NEEDS.format('"six"') + sources)).pyproject == {"name": "mine"}
    assert read(project(sources, requirements__txt="other\n")).lines == ("other",)


def test_the_users_own_settings_are_followed(indexes, project, user, monkeypatch, tmp_path):
    """His indexes come after the project's; a file that he names stands for his others."""
    user(f'extra-index-url = ["{indexes[1]}"]\nconstraint-dependencies = ["leaf<1"]\n')
    assert versions(project(requirements__txt="leaf\n")) == ["leaf 1.5"]
    text = f'[tool.uv]\nextra-index-url = ["{indexes[2]}"]\nprerelease = "allow"\n'
    assert versions(project(text, requirements__txt="leaf\n")) == ["leaf 2.0"]
    (tmp_path / "mine.toml").write_text('[[index]]\nurl = "index-1.0"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UV_CONFIG_FILE", "mine.toml")
    assert versions(project("[tool.uv]\n", requirements__txt="leaf\n")) == ["leaf 1.0"]
    monkeypatch.delenv("UV_CONFIG_FILE")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    assert uvsettings.of_user() == {}


def test_files_of_requirements_that_the_user_names_count(indexes, project, monkeypatch, tmp_path):
    """They start where the user is, and may name indexes of their own."""
    monkeypatch.setenv("UV_INDEX", " ".join(indexes))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "limits.txt").write_text("-r more.txt\n")
    (tmp_path / "more.txt").write_text("leaf<2 # not yet\n")
    monkeypatch.setenv("UV_CONSTRAINT", "limits.txt")
    assert versions(project(requirements__txt="leaf\n")) == ["leaf 1.5"]
    monkeypatch.delenv("UV_CONSTRAINT")
    monkeypatch.setenv("UV_OVERRIDE", "limits.txt")
    (tmp_path / "more.txt").write_text("leaf==1.0\n")
    target = Target.of(AMD64, "3.11.2", "")
    (found,) = pin(project(requirements__txt="leaf>1\n"), target, preferred={}, measure=len)
    assert found.version == "1.0"


def test_settings_that_are_followed_make_a_lock_stale(project, tmp_path):
    """Others do not, nor does where the project lies."""
    text = '[tool.uv]\nfind-links = ["wheels"]\n'
    first = read(project(text, requirements__txt="six\n")).digests
    again = project(text + "link-mode = 'copy'\n", root=tmp_path / "b", requirements__txt="six\n")
    assert read(again).digests == first
    assert sorted(first) == ["pyproject.toml", "requirements.txt"]
    changed = project(text.replace("wheels", "shelf"), requirements__txt="six\n")
    assert read(changed).digests != first
    assert sorted(
        read(project("[tool.uv]\nmanaged = true\n", requirements__txt="six\n")).digests
    ) == ["requirements.txt"]


def test_what_is_not_followed_is_said(project):
    """Where it would have changed what is resolved; what says nothing of that is no news."""
    text = (
        '[tool.uv]\nno-binary-package = ["x"]\npackage = false\nkeyring-provider = "subprocess"\n'
        '[tool.uv.pip]\nall-extras = true\nonly-binary = [":all:"]\n'
    )
    found = project(text, requirements__txt="six\n")
    assert [
        line.partition(" of [tool.uv] is not followed: ")[::2] for line in overlooked(found)
    ] == [
        ("no-binary-package", "nothing is built from source"),
        ("all-extras", "list what is needed in `dependencies`"),
        ("keyring-provider", "set it in your own uv settings"),
    ]
    assert read(found).settings.table == {}


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (
            'constraint-dependencies = ["x @ file:///x"]',
            r"constraint-dependencies\[0\]: a local path",
        ),
        (
            'override-dependencies = ["git+https://x/y"]',
            r"override-dependencies\[0\]: a source rep",
        ),
        (
            "constraint-dependencies = [1]",
            r"constraint-dependencies\[0\]: uv's settings in uv\.toml",
        ),
        ('find-links = "wheels"', r"uv\.toml.*another form"),
        ("index = [{}]", r"index\[0\]: .*another form"),
        ("[[dependency-metadata]]\nname = 'x'\nrequires-dist = ['y @ file:z']", "a local path"),
        ("index = [", "not valid TOML"),
    ],
)
def test_settings_of_another_form_are_named(project, settings, fault):
    """Nothing that was not understood is passed on."""
    with pytest.raises(ProjectError, match=fault):
        read(project(requirements__txt="six\n", uv__toml=settings))


def test_a_users_file_that_cannot_be_read_is_named(user, project):
    """It is no fault of the project's."""
    user("index = 1\n")
    with pytest.raises(UsageError, match=r"uv's settings in /.*/uv\.toml cannot be read"):
        question.settings(read(project(requirements__txt="six\n")), project().root)


def test_the_machines_settings_stand_under_the_users(machine, user, monkeypatch):
    """Lists are joined, of the rest the user's hold; of several of the machine's, one counts."""
    user('no-proxy = ["a"]\nindex-url = "https://user.invalid/s"\nno-binary = true\n')
    for name in ("xdg", "xdg2"):
        (machine / name / "uv").mkdir(parents=True)
        (machine / name / "uv" / "uv.toml").write_text(
            f'no-proxy = ["{name}"]\nindex-url = "i"\nfind-links = ["w"]\n'
        )
    monkeypatch.setenv("XDG_CONFIG_DIRS", f"{machine}/xdg:{machine}/xdg2")
    assert uvsettings.of_user() == {
        "no-proxy": ["a", "xdg"],
        "index-url": "https://user.invalid/s",
        "find-links": [f"{machine}/xdg/uv/w"],
    }


def test_the_environment_holds_good_in_another_folder(monkeypatch, tmp_path):
    """Folders that start where the user is are absolute; what is read by us is not told to uv."""
    monkeypatch.chdir(tmp_path)
    told = uvsettings.environment(
        {
            "UV_INDEX": "https://u:p@a.invalid/s?a=b mine=./own other",
            "UV_FIND_LINKS": "my wheels,/abs,https://b.invalid/x",
            "UV_CACHE_DIR": "cache",
            "SSL_CERT_FILE": "",
            "UV_CONFIG_FILE": "x",
            "UV_CONSTRAINT": "x",
            "UV_WORKING_DIR": "x",
            "UV_OFFLINE": "1",
        }
    )
    assert told == {
        "UV_INDEX": f"https://u:p@a.invalid/s?a=b mine={tmp_path}/own {tmp_path}/other",
        "UV_FIND_LINKS": f"{tmp_path}/my wheels,/abs,https://b.invalid/x",
        "UV_CACHE_DIR": f"{tmp_path}/cache",
        "SSL_CERT_FILE": "",
        "UV_OFFLINE": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }


def test_requirements_are_written_in_the_one_way_to_read_them(project, tmp_path):
    """Names normalised, folders as addresses, and each on its line."""
    (tmp_path / "my wheels#1").mkdir()
    text = "-f '../my wheels#1'\nRuamel.Yaml[x, a] >=1,<2 ; python_version<'4' # c\n"
    needs = read(project(requirements__txt=text))
    asked = question.of_project(
        needs, tmp_path, Target.of(AMD64, "3.11.2"), preferred={}, cache=None
    )
    folder = tmp_path / "files"
    folder.mkdir()
    assert question.write(asked, folder) == ("--config-file", "uv.toml", "requirements.txt")
    assert (folder / "requirements.txt").read_text().splitlines() == [
        f"--find-links file://{tmp_path}/my%20wheels%231",
        'ruamel-yaml[a,x]<2,>=1 ; python_version < "4"',
    ]
    assert tomllib.loads((folder / "uv.toml").read_text()) == {}
