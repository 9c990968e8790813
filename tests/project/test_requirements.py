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
        ("-e .", "an editable install cannot go into an image"),
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
