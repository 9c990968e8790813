"""The model Dockerfile, by its text; tests/integration builds and runs one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from torchship.errors import ProjectError, UsageError
from torchship.project.dockerfile import render, write
from torchship.project.project import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist"
TABLE = "[tool.torchship]\n"
SHA = "0" * 64


def instructions(text: str) -> list[str]:
    """Return the instructions, each on one line."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return re.sub(r" *\\\n *", " ", "\n".join(lines)).split("\n\n")


def words(text: str) -> list[str]:
    """Return the instructions' first words, in order."""
    joined = "\n".join(instructions(text))
    return [line.split()[0] for line in joined.splitlines() if line]


def test_the_examples_dockerfile_is_what_is_written_for_it():
    """Less the data, which its README explains, and under the name that the tutorial gives it."""
    written = render(replace(load(EXAMPLE), data=()))
    named = written.replace("me/mnist:v0.1", "me/pytorchmnistexample:v0.1")
    assert (EXAMPLE / "Dockerfile").read_text() == named


def test_what_changes_least_stands_first(project):
    """Dependencies come before data, data before code; root ends before the command."""
    data = f'data = [{{ path = "/d/x", sha256 = "{SHA}", urls = ["https://h.invalid/x"] }}]\n'
    one = project(
        TABLE + 'packages = ["git"]\nenvironment = { A = "1" }\n' + data,
        requirements__txt="leaf\n",
    )
    assert words(render(one)) == [
        *("ARG", "FROM", "ARG", "ARG", "ARG", "ENV", "RUN", "RUN", "WORKDIR"),
        *("COPY", "RUN", "RUN", "ENV", "COPY", "USER", "CMD"),
    ]
    shown = instructions(render(one))
    assert "apt-get install --yes --no-install-recommends git" in shown[3]
    assert shown[-2:] == ["USER user", 'CMD ["python", "main.py"]']


def test_every_instruction_has_a_comment_that_teaches_it(project):
    """Each block begins with a comment, and no line is too long to read."""
    text = render(project(requirements__txt="leaf\n"))
    blocks = text.split("\n\n")
    assert all(block.startswith(("#", "ARG BASE")) for block in blocks)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        ("", "python:3.11-slim-bookworm"),
        ('base = "debian:trixie"\n', "python:3.13-slim-trixie"),
        ('base = "debian:sid"\npython = "3.14"\n', "python:3.14-slim"),
        ('base = "registry.example/own:1"\n', "registry.example/own:1"),
    ],
)
def test_the_base_has_the_projects_python(project, settings, base):
    """Docker's own image of Python on the same Debian, or the image that the project names."""
    assert f"\nARG BASE={base}\nFROM ${{BASE}}\n" in render(project(TABLE + settings))


def test_all_that_says_what_is_needed_is_there_before_it_is_installed(project):
    """Included files and folders of wheels come where the requirements look for them."""
    root = project().root
    (root / "more").mkdir()
    (root / "wheels").mkdir()
    (root / "more" / "a b.txt").write_text("other\n")
    one = project(requirements__txt="-r more/a b.txt\n--find-links ./wheels\nleaf\n")
    text = render(one)
    assert (
        'COPY ["more/a b.txt", "./more/"]\nCOPY requirements.txt .\nCOPY wheels/ ./wheels/\n'
        in text
    )
    assert "pip install --no-cache-dir --requirement requirements.txt" in text


def test_settings_of_uvs_are_none_of_pips(project):
    """They stand in no layer before the code, whose every edit would install all again."""
    uv = "[tool.uv]\nfind-links = ['w']\n"
    text = render(project(TABLE + uv, requirements__txt="leaf\n", uv__toml="no-index = true\n"))
    assert [line for line in text.splitlines() if line.startswith("COPY")] == [
        "COPY requirements.txt .",
        "COPY . .",
    ]


def test_a_project_that_installs_itself_is_refused(project):
    """Its code comes after its packages."""
    text = TABLE + '[project]\nname = "x"\ndependencies = ["leaf"]\n'
    with pytest.raises(ProjectError, match=r"requirements\.txt has the project install itself"):
        render(project(text, requirements__txt="-e .\n"))


def test_dependencies_of_a_pyproject_are_read_when_it_is_built(project):
    """The Dockerfile does not age when they change; older Pythons read TOML by pip's own reader."""
    text = TABLE + '[project]\nname = "x"\nversion = "1"\ndependencies = ["leaf>=1"]\n'
    shown = render(project(text))
    assert "COPY pyproject.toml .\n" in shown
    assert "leaf" not in shown
    assert "import tomllib" in shown
    older = project(text.replace(TABLE, TABLE + 'base = "debian:bullseye"\n'))
    assert "from pip._vendor import tomli as tomllib" in render(older)


def test_a_pylock_is_installed_by_uv(project):
    """The pip of today's bases does not read it."""
    shown = render(project(pylock__toml='lock-version = "1.0"\ncreated-by = "x"\n'))
    assert "uv pip install --no-cache --requirement pylock.toml" in shown


def test_a_project_without_requirements_installs_nothing(project):
    """It still gets a `python` to start."""
    assert instructions(render(project()))[5:7] == ["RUN python3 -m venv /opt/venv", "COPY . ."]


def test_data_is_known_by_its_digest(project):
    """Each address is tried in turn; a file without one is put there by hand, and checked too."""
    settings = f"""
    [[tool.torchship.data]]
    path = "/data/x.gz"
    sha256 = "{SHA}"
    urls = ["https://one.invalid/x.gz?a=1&b='2'", "https://two.invalid/x.gz"]
    [[tool.torchship.data]]
    path = "/data/own file"
    sha256 = "{"1" * 64}"
    """
    shown = instructions(render(project(settings)))
    assert shown[6] == (
        'COPY ["own file", "/data/own file"]\n'
        f"RUN echo '{'1' * 64}  /data/own file' | sha256sum --check"
    )
    assert (
        f"fetch /data/x.gz {SHA} 'https://one.invalid/x.gz?a=1&b='\"'\"'2'\"'\"'' "
        "https://two.invalid/x.gz"
    ) in shown[7]


def test_values_reach_the_program_as_they_are(project):
    """Docker would replace $NAME and take quotes away."""
    settings = TABLE + """environment = { A = 'a "b" $HOME \\x', PYTHONUNBUFFERED = "0" }\n"""
    shown = render(project(settings))
    assert 'ENV PYTHONUNBUFFERED="0" \\\n    A="a \\"b\\" \\$HOME \\\\x"' in shown


@pytest.mark.parametrize(
    "settings",
    [
        'environment = { A = "1\\nUSER root" }',
        'command = ["python", "main.py", "\\nUSER root"]',
        f'data = [{{ path = "/d\\nUSER root", sha256 = "{SHA}" }}]',
        f'data = [{{ path = "/d", sha256 = "{SHA}", urls = ["https://h.invalid/\\nUSER root"] }}]',
    ],
)
def test_no_setting_begins_an_instruction_of_its_own(project, settings):
    """What has several lines is refused, by its name."""
    with pytest.raises(UsageError, match=r"tool\.torchship\..* has several lines"):
        render(project(TABLE + settings))


def test_what_is_left_out_of_the_image_is_named(project):
    """`exclude` is torchship's own: Docker reads .dockerignore."""
    assert '# Name there, too: ["notebooks/"]' in render(
        project(TABLE + 'exclude = ["notebooks/"]\n')
    )


def test_packages_in_src_are_found(project):
    """As in the image that torchship builds; what stays out of it does not count."""
    one = project('[project]\nname = "pkg"\n')
    assert "\nENV PYTHONPATH=/workspace/src\n" in render(one, paths=["src/pkg/__init__.py"])
    assert "PYTHONPATH" not in render(one)


def test_the_user_may_write_where_outputs_go(project):
    """A folder of the host's can be mounted there, as with any image of torchship's."""
    text = render(project())
    assert re.search(r"install --directory --owner=user --group=user .*/output", text)
    assert re.search(
        r"^ENV .*TORCHSHIP_OUTPUT=/output$", "\n".join(instructions(text)), re.MULTILINE
    )


@pytest.mark.parametrize(
    ("torch", "said"), [("cpu", "CPU-only torch"), ("cu130", "cu130 build"), ("auto", "more index")]
)
def test_no_address_of_an_index_is_written(project, monkeypatch, torch, said):
    """The builder's own are given to the build: they differ, and may hold a password."""
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:hunter2@index.invalid/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://other.invalid/simple")
    shown = render(project(TABLE + f'torch = "{torch}"\n', requirements__txt="torch\n"))
    assert ".invalid" not in shown
    assert "hunter2" not in shown
    assert said in shown


def test_a_dockerfile_of_the_users_own_stays(tmp_path):
    """Nothing is overwritten, unless it says the same."""
    path = tmp_path / "Dockerfile"
    assert write("FROM x\n", path) == path
    assert write("FROM x\n", path) == path
    with pytest.raises(ProjectError, match="is there already"):
        write("FROM y\n", path)
    assert path.read_text() == "FROM x\n"
