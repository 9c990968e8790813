"""Projects and their settings."""

from __future__ import annotations

import unicodedata

import pytest

from torchship.errors import ProjectError, UsageError
from torchship.platform import Platform
from torchship.project.project import component, default_name, is_unnamed, load

SHA = "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"


def faults(project, text):
    """Return what is said of faulty settings."""
    with pytest.raises(UsageError) as caught:
        project("[tool.torchship]\n" + text)
    return str(caught.value)


def test_a_directory_with_a_program_and_requirements_is_a_project(project):
    """Nothing has to be configured."""
    found = project(requirements__txt="numpy\n")
    assert found.name == "project"
    assert found.command == ("python", "main.py")
    assert found.requirements == "requirements.txt"
    assert found.platforms == (Platform("linux", "amd64"),)
    assert found.environment == {"PYTHONUNBUFFERED": "1"}


def test_a_program_alone_needs_nothing(project):
    """Without requirements the set is empty."""
    assert project().requirements is None


def test_requirements_are_found_in_pyproject_and_pylock(project, tmp_path):
    """requirements.txt comes first, then pylock.toml, then [project]'s dependencies."""
    text = '[project]\nname = "x"\nversion = "1"\ndependencies = ["numpy"]\n'
    assert project(text).requirements == "pyproject.toml"
    assert project(text, pylock__toml="").requirements == "pylock.toml"
    assert project(text, requirements__txt="").requirements == "requirements.txt"


def test_a_directory_without_a_program_is_refused_with_a_way_on(tmp_path):
    """No main.py and no command: the error says what to write."""
    (tmp_path / "train.py").write_text("")
    with pytest.raises(ProjectError, match=r"has no main\.py") as caught:
        load(tmp_path)
    assert 'command = ["python", "train.py"]' in caught.value.hint
    assert f"torchship run {tmp_path} -- python train.py" in caught.value.hint
    (tmp_path / "train.py").unlink()
    with pytest.raises(ProjectError, match=r"has no main\.py") as caught:
        load(tmp_path)
    assert "command" in caught.value.hint
    assert '["python"' not in caught.value.hint


def test_a_command_may_start_something_else_than_main(project, tmp_path):
    """With a command of its own a project needs no main.py, but the file that it names."""
    root = tmp_path / "other"
    root.mkdir()
    (root / "pyproject.toml").write_text('[tool.torchship]\ncommand = ["python", "train.py"]\n')
    with pytest.raises(ProjectError, match=r"starts train\.py, which is not in"):
        load(root)
    (root / "train.py").write_text("")
    assert load(root).command == ("python", "train.py")


def test_a_missing_directory_is_refused(tmp_path):
    """A path that is no directory is named."""
    with pytest.raises(ProjectError, match="is not a directory"):
        load(tmp_path / "absent")


def test_a_program_in_place_of_its_directory_is_refused_with_the_directory(tmp_path):
    """Whoever names main.py is told to name its folder."""
    (tmp_path / "main.py").write_text("")
    with pytest.raises(ProjectError) as caught:
        load(tmp_path / "main.py")
    assert str(tmp_path) in caught.value.hint


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("mnist", "mnist"),
        ("My Expérience (2)", "my-experience-2"),
        ("__x__", "x"),
        ("실험", "project-59a4e313"),
        ("mnist 실험", "mnist-9b13c990"),
        ("a..b", "a-b"),
        ("...", "project"),
    ],
)
def test_the_default_name_is_a_repository_component(tmp_path, folder, name):
    """Whatever a directory is called, its image has a valid name, and another than the next."""
    assert default_name(tmp_path / folder, {}) == name


@pytest.mark.parametrize(
    ("folder", "settings", "unnamed"),
    [("실험", "", True), ("mnist 실험", "", False), ("실험", 'name = "x"\n', False)],
)
def test_a_name_with_nothing_of_the_directorys_is_known(
    project, tmp_path, folder, settings, unnamed
):
    """Such a name says nothing to people, who may want to give another."""
    assert is_unnamed(project(f"[tool.torchship]\n{settings}", root=tmp_path / folder)) is unnamed


def test_a_name_in_two_normal_forms_is_one(tmp_path):
    """Names from macOS have their letters spelt apart, and the image has the same name."""
    one, two = (unicodedata.normalize(form, "실험") for form in ("NFC", "NFD"))
    assert component(one) == component(two) != component("논문")


def test_the_projects_own_name_is_its_images(project):
    """What pyproject.toml calls the project counts for more than the directory's name."""
    assert project('[project]\nname = "My.Net"\n').name == "my-net"
    assert project('[project]\nname = "a"\n[tool.torchship]\nname = "b"\n').name == "b"


def test_a_command_of_the_callers_needs_no_main(tmp_path):
    """Whoever says what to run needs no program that stands in for it."""
    (tmp_path / "train.py").write_text("")
    with pytest.raises(ProjectError, match="no main"):
        load(tmp_path)
    assert load(tmp_path, command=("python", "train.py")).root == tmp_path


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        (">=3.12", 'base = "debian:trixie"'),
        ("==3.12.*", 'base = "python:3.12-slim"'),
        ("<3.10", 'base = "debian:bullseye"'),
        ("<3", "correct requires-python"),
        ("three", ">=3.11"),
    ],
)
def test_a_python_that_the_project_does_not_want_is_refused(project, wanted, hint):
    """The range in pyproject.toml holds for the image, and the message says which base fits."""
    with pytest.raises(UsageError, match="requires-python") as caught:
        project(f'[project]\nname = "x"\nrequires-python = "{wanted}"\n')
    assert hint in caught.value.hint


@pytest.mark.parametrize("wanted", [">=3.9", ">=3.11.4,<4", "~=3.11"])
def test_a_python_that_the_project_wants_is_taken(project, wanted):
    """A range that has a release of the image's Python is no obstacle."""
    assert project(f'[project]\nname = "x"\nrequires-python = "{wanted}"\n').python == "3.11"


def test_broken_toml_is_named_with_its_line(project):
    """A syntax error says where."""
    with pytest.raises(ProjectError, match=r"pyproject.toml is not valid TOML.*line 2"):
        project("[tool.torchship]\nname =\n")


def test_all_faults_are_told_at_once(project):
    """One look shows every faulty setting, each with its path."""
    said = faults(
        project,
        f"""
        nam = "x"
        python = 3.11
        platforms = ["linux/amd64", "windows/amd64"]
        torch = "gpu"
        [[tool.torchship.data]]
        path = "/data/a"
        sha256 = "{SHA}"
        [[tool.torchship.data]]
        path = "/data/b"
        sha = "{SHA}"
        """,
    )
    assert "tool.torchship.nam: there is no such key; did you mean 'name'?" in said
    assert "tool.torchship.python: expected a string, got a number" in said
    assert "tool.torchship.platforms[1]: platform 'windows/amd64' is not supported" in said
    assert "tool.torchship.torch: 'gpu' is not a build of torch" in said
    assert "tool.torchship.data[1].sha: there is no such key; did you mean 'sha256'?" in said
    assert "tool.torchship.data[1].sha256: is missing" in said


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('name = "Not Valid"', "tool.torchship.name: 'Not Valid' is not a repository name"),
        ("command = []", "tool.torchship.command: is empty"),
        ('command = "python main.py"', "tool.torchship.command: expected a list"),
        ("torch = []", "tool.torchship.torch: is empty"),
        ('torch = ["cpu", "auto"]', "tool.torchship.torch[1]: auto can only stand alone"),
        ('torch = ["cpu", "cpu"]', "tool.torchship.torch[1]: cpu is listed twice"),
        ('torch = ["cpu", "gpu"]', "tool.torchship.torch[1]: 'gpu' is not a build of torch"),
        ("torch = 13", "tool.torchship.torch: expected"),
        ('python = "2.7"', "tool.torchship.python: '2.7' is not a version"),
        ('python = "3.13"', 'debian:bookworm has Python 3.11: take base = "debian:trixie"'),
        ('base = "a b"', "tool.torchship.base"),
        ('packages = ["Git"]', "tool.torchship.packages[0]: 'Git' is not the name"),
        ("platforms = []", "tool.torchship.platforms: is empty"),
        ('platforms = ["linux/riscv64"]', "tool.torchship.platforms[0]"),
        ('torch = "gpu"', "tool.torchship.torch: 'gpu' is not a build"),
        ('requirements = "../up.txt"', "does not start in the project"),
        ('requirements = "absent.txt"', "is not a file of the project"),
        ('environment = { "A-B" = "1" }', "tool.torchship.environment.A-B"),
        ("environment = { A = 1 }", "tool.torchship.environment"),
        ('environment = { TORCHSHIP_OUTPUT = "/x" }', "reserved"),
        ('prune = ["/usr/"]', "tool.torchship.prune[0]"),
        ('bytecode = "some"', "tool.torchship.bytecode"),
        ('metrics = { acc = { file = "a", pattern = "(b)" } }', "not both"),
        ("metrics = { acc = { pattern = 'b(' } }", "is not a regular expression"),
        ("metrics = { acc = { pattern = 'b' } }", "needs one group"),
        ("metrics = { acc = { pattern = '(a)(b)(c)' } }", "needs one group"),
        ('metrics = { acc = { file = "../a" } }', "does not start in the output directory"),
        ('metrics = { acc = { better = "more" } }', "tool.torchship.metrics.acc.better"),
        ("metrics = { acc = { tolerance = -1.0 } }", "tool.torchship.metrics.acc.tolerance"),
    ],
)
def test_a_faulty_setting_is_named_by_its_path(project, text, fault):
    """Each setting is checked, and the error says which and what is expected."""
    assert fault in faults(project, text)


@pytest.mark.parametrize("url", ["ftp://a/x", "http://", "x", "http://[a"])
def test_data_is_fetched_from_http_addresses(project, url):
    """Any other is named by its path in the table."""
    said = faults(project, f'data = [{{ path = "x", sha256 = "{SHA}", urls = ["{url}"] }}]')
    assert "tool.torchship.data[0].urls[0]" in said


@pytest.mark.parametrize(
    "path",
    [
        "../up",
        "/etc/passwd",
        "/usr/lib/x",
        "/",
        "",
        "/data/../etc/x",
        "/data/",
        "/proc/x",
        "/output/x",
    ],
)
def test_data_stays_out_of_what_the_image_needs(project, path):
    """A data file can neither climb out nor replace a part of the system."""
    said = faults(project, f'data = [{{ path = "{path}", sha256 = "{SHA}" }}]')
    assert "tool.torchship.data[0].path" in said


def test_relative_data_starts_at_the_working_directory(project):
    """Data paths are absolute in the image."""
    found = project(f'[tool.torchship]\ndata = [{{ path = "data/./x.gz", sha256 = "{SHA}" }}]')
    assert [data.path for data in found.data] == ["/workspace/data/x.gz"]


@pytest.mark.parametrize("other", ["/data/x", "/data//x", "/data/x/y"])
def test_two_data_files_cannot_share_a_path(project, other):
    """Neither the same path twice, nor a file inside a file."""
    item = '{{ path = "{}", sha256 = "' + SHA + '" }}'
    said = faults(project, f"data = [{item.format('/data/x')}, {item.format(other)}]")
    assert "tool.torchship.data[1].path" in said


def test_the_suite_gives_the_python(project):
    """Trixie's Python is 3.13, and that need not be said."""
    assert project('[tool.torchship]\nbase = "debian:trixie"').python == "3.13"


def test_settings_of_another_kind_are_refused(project):
    """A [tool.torchship] that is no table is told as such."""
    with pytest.raises(UsageError, match=r"tool\.torchship in pyproject\.toml is not a table"):
        project("tool.torchship = 3")


def test_several_builds_of_torch_are_variants(project):
    """One build is an image without variants, in a list or not."""
    for text, torch, variants in (
        ("", ("auto",), ("",)),
        ('torch = "cpu"', ("cpu",), ("",)),
        ('torch = ["cpu"]', ("cpu",), ("",)),
        ('torch = ["cpu", "cu130"]', ("cpu", "cu130"), ("cpu", "cu130")),
    ):
        found = project("[tool.torchship]\n" + text)
        assert (found.torch, found.variants) == (torch, variants)
