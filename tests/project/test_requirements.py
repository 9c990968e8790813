"""What is read of requirements files."""

from __future__ import annotations

import pytest

from torchship.errors import ProjectError, UsageError
from torchship.project.reqfile import logical_lines
from torchship.project.requirements import read


def test_includes_are_read_through(project, tmp_path):
    """Files included with -r and -c count, wherever in the project they are."""
    found = project(
        requirements__txt="-r more/base.txt\n-c constraints.txt\nsix\n",
        constraints__txt="numpy<3\n",
    )
    (found.root / "more").mkdir()
    (found.root / "more" / "base.txt").write_text("-r ../requirements.txt\nnumpy\n")
    assert sorted(read(found).digests) == [
        "constraints.txt",
        "more/base.txt",
        "requirements.txt",
    ]


def test_comments_and_blanks_do_not_change_the_digest(project):
    """Only what a file means makes a lock stale."""
    first = read(project(requirements__txt="six==1.0 # pinned\n\n# note\nnumpy\n")).digests
    second = read(project(requirements__txt="six==1.0\r\nnumpy")).digests
    third = read(project(requirements__txt="six==1.1\nnumpy")).digests
    assert first == second
    assert third != first


def test_every_form_that_an_index_can_answer_is_taken(project, tmp_path):
    """Hashes, markers, extras, continued lines, options and comments pass."""
    found = project(
        requirements__txt=(
            "--extra-index-url https://user:pw@index.invalid/simple\n"
            "--pre\n"
            'uvicorn[standard]>=0.1 ; python_version < "4"  # a server\n'
            f"six==1.0 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'B' * 64}\n"
        )
    )
    needs = read(found)
    assert needs.options == ("--extra-index-url https://user:pw@index.invalid/simple",)
    assert needs.hashes == {"six": frozenset({"a" * 64, "b" * 64})}
    assert needs.prerelease


def test_folders_of_wheels_start_at_the_file_that_names_them(project):
    """A relative --find-links becomes absolute, as pip reads it."""
    found = project(requirements__txt="-f ./wheels\nsix\n", wheels__keep="")
    with pytest.raises(ProjectError, match=r"line 1: --find-links names \./wheels, which does not"):
        read(found)
    (found.root / "wheels").mkdir()
    assert read(found).options == (f"--find-links {found.root / 'wheels'}",)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("-e ./x", "an editable install cannot go into an image"),
        ("--editable=./x", "an editable install"),
        ("./local", "a local path cannot be pinned"),
        ("x @ file:///tmp/x.whl", "a local path"),
        ("git+https://user:secret@host.invalid/x", "a source repository"),
        ("x @ git+https://host.invalid/x", "a source repository"),
        ("https://host.invalid/x.whl", "a file or an address"),
        ("-r ../other.txt", "outside the project"),
        ("-r https://host.invalid/r.txt", "a file on the network cannot be included"),
        ("-r absent.txt", r"absent.txt .included by requirements.txt, line 2. cannot be read"),
        ("this is no requirement", "is not a requirement"),
    ],
)
def test_what_no_index_can_answer_is_named_with_its_line(project, line, fault):
    """The error says which line of which file, and shows no password."""
    found = project(requirements__txt=f"# first\n{line}\n")
    with pytest.raises(ProjectError, match=fault) as caught:
        read(found)
    assert "line 2" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_in_utf_16_is_told_as_such(project):
    """What PowerShell writes is named, not shown as gibberish."""
    found = project(requirements__txt="six\n")
    (found.root / "requirements.txt").write_bytes("six\n".encode("utf-16"))
    with pytest.raises(ProjectError, match="is not UTF-8") as caught:
        read(found)
    assert "PowerShell" in caught.value.hint


def test_a_file_of_another_encoding_is_told_without_a_guess(project):
    """A Korean comment that Windows wrote is no UTF-16, and no work of PowerShell."""
    found = project(requirements__txt="six\n")
    (found.root / "requirements.txt").write_bytes("six  # 실험\n".encode("cp949"))
    with pytest.raises(ProjectError, match="is not UTF-8") as caught:
        read(found)
    assert "PowerShell" not in caught.value.hint


def test_requirements_that_go_on_are_joined(project):
    """As pip joins them; what the file includes is part of the answer, a folder absolute."""
    text = "six \\\n  >= 1.0\n-r more.txt\n-c limits.txt\n-f wheels\n"
    found = project(requirements__txt=text, more__txt="tqdm\n", limits__txt="tqdm<5\n")
    (found.root / "wheels").mkdir()
    needs = read(found)
    assert (needs.lines, needs.constraints) == (("six >= 1.0", "tqdm"), ("tqdm<5",))
    assert needs.options == (f"--find-links {found.root}/wheels",)


def test_options_stand_as_pip_takes_them(project):
    """Several on one line, short ones with their value at once, paths in quotes or with blanks."""
    more = {"more__txt": "tqdm \\\n  <5\n", "my file__txt": "six\n", "o__txt": "attrs\n"}
    text = "--no-index --find-links wheels\n-f wheels --prefer-binary -fwheels\n-rmore.txt\n"
    text += "-r 'my file.txt'\n-r my file.txt\n--requirement=o.txt --pre\n"
    text += "--index-url https://a.invalid/s --extra-index-url=https://b.invalid/s\n"
    text += "--only-binary :all:\n--only-binary=numpy --require-hashes --trusted-host a.invalid\n"
    found = project(requirements__txt=text, **more)
    (found.root / "wheels").mkdir()
    needs = read(found)
    assert needs.lines == ("tqdm <5", "six", "attrs")
    assert needs.prerelease
    assert needs.options == (
        "--no-index",
        f"--find-links {found.root}/wheels",
        "--index-url https://a.invalid/s",
        "--extra-index-url https://b.invalid/s",
    )


def test_of_several_indexes_the_last_is_the_one(project):
    """As for pip, wherever they are said; further ones are additions."""
    text = "-i https://a.invalid/s\n--extra-index-url https://x.invalid/s\n-r more.txt\nsix\n"
    found = project(requirements__txt=text, more__txt="--index-url=https://b.invalid/s\n")
    assert read(found).options == (
        "--extra-index-url https://x.invalid/s",
        "--index-url https://b.invalid/s",
    )


def test_folders_below_the_home_folder_are_found(project, monkeypatch, tmp_path):
    """Pip writes a leading ~ out."""
    monkeypatch.setenv("HOME", str(tmp_path))
    found = project(requirements__txt="-f ~/project\n")
    assert read(found).options == (f"--find-links {found.root}",)


@pytest.mark.parametrize(
    ("line", "fault", "way"),
    [
        ("--no-binary six", "--no-binary asks for a build from source", "pip wheel"),
        ("--only-binary :none:", "--only-binary asks for a build", "leave the line out"),
        ("--pre --no-binary :all:", "--no-binary asks for a build", "leave the line out"),
        ("--no-binari six", "not an option that torchship knows; did you mean '--no-bin", "leave"),
        ("--global-option x", "--global-option is not an option", "pip's settings"),
        ("--", "-- is not an option", "leave"),
        ("six --config-settings a=b", "--config-settings is no option of a requirement", "wheels"),
        (f"six --hash=sha256:{'0' * 64} -e ./x", "-e is no option of a requirement", "leave"),
        (f"six --hash=sha512:{'0' * 128}", "the hashes of six are sha512", "--hash=sha256"),
        ("six.zip", "a local path cannot be pinned: six.zip", "pip wheel"),
        ("six.tar.gz[x]; python_version > '3'", "a local path cannot be pinned", "pip wheel"),
        ("six==${SIX}", "depends on a variable of the environment", "write its value"),
        ("--index-url 'https://u:secret@h.invalid/s x'", "takes one address", None),
        ("--find-links", "--find-links names nothing", None),
        ("-r 'open.txt", "quotes of .* do not match", None),
    ],
)
def test_what_cannot_be_followed_is_named_with_its_line(project, line, fault, way):
    """An option is never passed over: what it would change, somebody counts on."""
    found = project(requirements__txt=f"# first\n{line}\n")
    with pytest.raises(ProjectError, match=f"^requirements.txt, line 2: .*{fault}") as caught:
        read(found)
    assert way is None or way in caught.value.hint
    assert "secret" not in str(caught.value)


def test_a_file_that_is_a_link_out_of_the_project_is_named(project, tmp_path):
    """It includes nothing: it is itself elsewhere."""
    found = project(requirements__txt="six\n")
    (found.root / "requirements.txt").replace(tmp_path / "elsewhere.txt")
    (found.root / "requirements.txt").symlink_to(tmp_path / "elsewhere.txt")
    with pytest.raises(ProjectError, match=r"^requirements\.txt links to /.*elsewhere\.txt, which"):
        read(found)


@pytest.mark.parametrize("line", ["-e .", ".", "--editable ./", "-e {root}"])
def test_the_projects_own_package_stands_for_what_it_needs(project, line, tmp_path):
    """Its code is in the image as it is; that it is not installed is said, with the way on."""
    text = '[project]\nname = "mine"\ndependencies = ["tqdm", "attrs>=1"]\n'
    line = line.format(root=tmp_path / "project")
    found = project(text, requirements__txt=f"six\n{line}\n")
    needs = read(found)
    assert needs.lines == ("six", "tqdm", "attrs>=1")
    assert needs.has_itself
    (note,) = needs.notes
    assert note.startswith(f"requirements.txt, line 2: `{line}` is in the image as it is")
    (found.root / "src").mkdir()
    assert "found in /workspace/src" in read(found).notes[0]
    (found.root / "src" / "random.py").touch()
    assert 'PYTHONPATH = "/workspace/src"' in read(found).notes[0]
    changed = project(text.replace("tqdm", "numpy"), requirements__txt=f"six\n{line}\n")
    assert read(changed).digests != needs.digests


@pytest.mark.parametrize("text", ["", '[project]\nname = "x"\ndynamic = ["dependencies"]\n'])
def test_an_own_package_that_only_a_build_can_tell_of_is_refused(project, text):
    """A setup.py is a program."""
    with pytest.raises(ProjectError, match=r"what `-e \.` needs, only a build") as caught:
        read(project(text, requirements__txt="-e .\n"))
    assert "list it here" in caught.value.hint


def test_of_a_pyproject_only_the_dependencies_count(project):
    """A new description makes no lock stale; a new dependency does."""
    text = '[project]\nname = "x"\nversion = "1"\ndescription = "{}"\ndependencies = ["{}"]\n'
    first = read(project(text.format("a", "six"))).digests
    assert read(project(text.format("b", "six"))).digests == first
    assert read(project(text.format("b", "numpy"))).digests != first


def test_white_space_around_a_requirement_means_nothing(project):
    """It is taken off once, for all that reads it."""
    text = '[project]\nname = "x"\ndependencies = [{}]\n'
    padded = read(project(text.format('" numpy ", "\\tsix>=1"')))
    assert padded.names == {"numpy", "six"}
    assert padded.digests == read(project(text.format('"numpy", "six>=1"'))).digests


@pytest.mark.parametrize("text", ['["dependencies"]', '["version", "dependencies"]'])
def test_dependencies_that_only_a_build_can_tell_are_refused(project, text):
    """They are not taken for none: it is said, unless a requirements.txt lists them."""
    found = project(f'[project]\nname = "x"\ndynamic = {text}\n')
    with pytest.raises(ProjectError, match="has dynamic dependencies") as raised:
        read(found)
    assert "requirements.txt" in raised.value.hint
    found = project(found.root.joinpath("pyproject.toml").read_text(), requirements__txt="six\n")
    assert read(found).names == {"six"}


def test_a_version_that_only_a_build_can_tell_is_none_of_ours(project):
    """`dynamic` names what a project's wheel is told of, and most of that is not asked for."""
    found = project('[project]\nname = "x"\ndynamic = ["version"]\n')
    assert read(found).names == frozenset()


def test_dynamic_fields_are_a_list(project):
    """A string of them is a mistake, and is not searched for a word."""
    with pytest.raises(UsageError, match=r"project\.dynamic in pyproject\.toml is not a list"):
        project('[project]\nname = "x"\ndynamic = "dependencies"\n')


def test_continued_lines_keep_the_number_of_their_first():
    """Errors point at where a requirement begins."""
    assert list(logical_lines("a \\\n  b\n# c\n\nd#e\nf # g")) == [(1, "a b"), (5, "d#e"), (6, "f")]


def test_the_folder_of_a_user_whom_nobody_knows_is_not_there(project):
    """A home that cannot be found is told as any other path is."""
    with pytest.raises(ProjectError, match=r"~nobody-here/wheels, which does not exist"):
        read(project(requirements__txt="-f ~nobody-here/wheels\nleaf\n"))
