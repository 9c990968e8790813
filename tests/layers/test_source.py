"""The project's files as a layer."""

import os
import time

import pytest

from torchship.errors import ProjectError, SecretFound
from torchship.layers.layer import key
from torchship.layers.source import LARGE, SourceRecipe, collect, digest, large


def paths(root, **settings):
    """Return which paths go in."""
    return [file.path for file in collect(root, **settings).files]


def test_files_go_in_sorted_below_the_working_directory(cook, project):
    """Modes are 0644 or 0755, all is the user's, and time is zero."""
    root = project({"main.py": "print()", "run.sh": "#!/bin/sh", "pkg/a.py": "", "Z": ""})
    (root / "run.sh").chmod(0o700)
    (root / "main.py").chmod(0o600)
    made = cook(SourceRecipe(root=root, files=collect(root).files))
    assert list(made.members) == [
        "workspace",
        "workspace/Z",
        "workspace/main.py",
        "workspace/pkg",
        "workspace/pkg/a.py",
        "workspace/run.sh",
    ]
    assert {(info.uid, info.gid, info.mtime) for info in made.members.values()} == {(1000, 1000, 0)}
    modes = {name: info.mode for name, info in made.members.items()}
    assert (modes["workspace/main.py"], modes["workspace/run.sh"]) == (0o644, 0o755)
    assert made.read("workspace/main.py") == b"print()"


def test_the_tree_is_the_same_from_anywhere(cook, project, tmp_path):
    """Neither the path, nor the order of writing, nor umask, nor times reach the layer."""
    files = {"main.py": "print()", "b/c.txt": "c", "a.txt": "a"}
    root = project(files)
    other = tmp_path / "elsewhere" / "copy"
    old = os.umask(0o077)
    try:
        for name in reversed(files):
            path = other / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[name])
            os.utime(path, (1, 1))
    finally:
        os.umask(old)
    one = SourceRecipe(root=root, files=collect(root).files)
    two = SourceRecipe(root=other, files=collect(other).files)
    assert key(one) == key(two)
    assert digest(one.files) == digest(two.files)
    assert cook(one).data == cook(two).data


@pytest.mark.parametrize("change", ["content", "mode", "name"])
def test_every_change_is_another_layer(project, change):
    """Content, the executable bit and names are all in the key."""
    root = project({"main.py": "print()"})
    before = key(SourceRecipe(root=root, files=collect(root).files))
    if change == "content":
        project({"main.py": "print(1)"})
    elif change == "mode":
        (root / "main.py").chmod(0o755)
    else:
        (root / "main.py").rename(root / "other.py")
    assert key(SourceRecipe(root=root, files=collect(root).files)) != before


def test_links_inside_the_project_are_kept(cook, project):
    """A relative link stays a link, to a file or a folder, and is not followed."""
    root = project({"data/a.txt": "a", "main.py": ""})
    (root / "pkg").mkdir()
    (root / "pkg" / "data").symlink_to("../data")
    (root / "dangling").symlink_to("gone.txt")
    made = cook(SourceRecipe(root=root, files=collect(root).files))
    assert made.members["workspace/pkg/data"].linkname == "../data"
    assert made.members["workspace/dangling"].linkname == "gone.txt"
    assert "workspace/pkg/data/a.txt" not in made.members


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "sub/../../outside"])
def test_links_out_of_the_project_are_errors(project, target):
    """What a link leads to on the author's machine is not in the image."""
    root = project({"main.py": "", "sub/a": ""})
    (root / "link").symlink_to(target)
    with pytest.raises(ProjectError, match=r"link points out of the project"):
        collect(root)


def test_links_that_leave_through_a_link_are_errors(project, tmp_path):
    """Where the link really leads counts too."""
    root = project({"main.py": ""})
    (tmp_path / "outside").mkdir()
    (root / "a").symlink_to("b/x")
    (root / "b").symlink_to(tmp_path / "outside")
    with pytest.raises(ProjectError) as raised:
        collect(root)
    assert "the link a points" in raised.value.message
    assert "the link b points" in raised.value.message


def test_a_circle_of_links_is_kept_as_it_is(project):
    """A link to itself is odd, and no reason to fail."""
    root = project({"main.py": ""})
    (root / "self").symlink_to("self")
    assert paths(root) == ["main.py", "self"]


def test_fifos_and_sockets_are_named_not_read(project):
    """A build never waits for the other end of a pipe."""
    root = project({"main.py": ""})
    os.mkfifo(root / "pipe")
    with pytest.raises(ProjectError, match="pipe is neither"):
        collect(root)
    assert paths(root, exclude=["pipe"]) == ["main.py"]


def test_an_ignore_file_is_a_file(project):
    """A pipe of that name is not waited for, a folder is no crash."""
    root = project({"main.py": ""})
    os.mkfifo(root / ".dockerignore")
    with pytest.raises(ProjectError, match=r"\.dockerignore cannot be read: it is a pipe"):
        collect(root)
    (root / ".dockerignore").unlink()
    (root / ".dockerignore").mkdir()
    with pytest.raises(ProjectError, match=r"\.dockerignore cannot be read: Is a directory"):
        collect(root)


def test_names_that_are_not_utf8_are_named(project):
    """A layer's names are UTF-8: another encoding is an error, not a guess."""
    root = project({"main.py": ""})
    try:
        (root / os.fsdecode(b"caf\xe9.py")).write_text("")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    with pytest.raises(ProjectError, match=r"caf\\xe9"):
        collect(root)


def test_an_ignore_file_that_is_not_utf8_is_named(project):
    """Its patterns are not guessed, and the error says what to do."""
    root = project({"main.py": ""})
    (root / ".dockerignore").write_bytes(b"caf\xe9\n")
    with pytest.raises(ProjectError, match=r"dockerignore is not UTF-8") as caught:
        collect(root)
    assert caught.value.hint == "save it as UTF-8"


def test_a_file_that_changes_during_the_build_is_an_error(cook, project):
    """The layer holds what was hashed, or there is none."""
    for after in ("print(2)", "print(", "print(1)  # longer"):
        root = project({"main.py": "print(1)"})
        recipe = SourceRecipe(root=root, files=collect(root).files)
        project({"main.py": after})
        with pytest.raises(ProjectError, match=r"main\.py changed"):
            cook(recipe)


def test_a_file_that_is_gone_is_an_error(cook, project):
    """So is one that was deleted meanwhile, or became a link."""
    root = project({"main.py": "print(1)"})
    recipe = SourceRecipe(root=root, files=collect(root).files)
    (root / "main.py").unlink()
    with pytest.raises(ProjectError, match=r"main\.py is gone"):
        cook(recipe)
    (root / "main.py").symlink_to("/etc/hostname")
    with pytest.raises(ProjectError, match=r"main\.py"):
        cook(recipe)


@pytest.mark.unprivileged
@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_named(project):
    """A file or folder without read permission is an error, not a hole in the image."""
    root = project({"main.py": "", "locked/a": ""})
    (root / "main.py").chmod(0)
    (root / "locked").chmod(0)
    try:
        with pytest.raises(ProjectError, match=r"locked cannot be listed.*main\.py cannot be read"):
            collect(root)
    finally:
        (root / "locked").chmod(0o755)


def test_secrets_stop_the_build_and_can_be_allowed_or_ignored(project):
    """All are named at once; `allow` and patterns are the ways past."""
    root = project({"main.py": "", ".env": "A=1", "sub/id_rsa": "x"})
    with pytest.raises(SecretFound, match=r"\.env .*sub/id_rsa"):
        collect(root)
    assert paths(root, allow=[".env"], exclude=["sub"]) == [".env", "main.py"]
    assert paths(root, allow=["**"]) == [".env", "main.py", "sub/id_rsa"]


def test_a_notebook_with_pictures_is_searched_too(project):
    """A password does not pass because much else is in its file."""
    picture = "iVBORw0K" * 400_000
    login = "!pip install -i https://ci:Winter-2031@pypi.corp/simple"
    root = project({"main.py": "", "a.ipynb": picture + login + picture, "b.ipynb": picture})
    with pytest.raises(SecretFound, match=r"^a file .*: a\.ipynb \(a password in an address\)"):
        collect(root)
    assert paths(root, allow=["a.ipynb"]) == ["a.ipynb", "b.ipynb", "main.py"]


def test_large_files_go_in_whole(cook, project):
    """A file beyond what is read at once is hashed and written all the same."""
    root = project({"main.py": ""})
    data = os.urandom(3 << 20)
    (root / "weights.pt").write_bytes(data)
    made = cook(SourceRecipe(root=root, files=collect(root).files))
    assert made.read("workspace/weights.pt") == data


def test_files_that_are_better_pinned_as_data_are_told(project):
    """Large files are allowed; the caller can say that there is a better place for them."""
    root = project({"main.py": ""})
    with (root / "weights.pt").open("wb") as stream:
        stream.truncate(LARGE)
    assert [file.path for file in large(collect(root).files)] == ["weights.pt"]


def test_a_small_project_is_scanned_at_once(project):
    """An unchanged project of twenty files costs a few milliseconds, whatever lies in its venv."""
    root = project({f"pkg/m{number}.py": "import torch\n" * 100 for number in range(20)})
    project({"venv/pyvenv.cfg": "", **{f"venv/lib/m{number}.py": "" for number in range(500)}})
    collect(root)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        collect(root)
        best = min(best, time.perf_counter() - start)
    assert best < 0.02


def test_empty_folders_go_in(cook, project):
    """A program may open checkpoints/m.pt for writing: its folder is there, as for Docker."""
    root = project({"main.py": "", "emptied/a.log": "", "gone/a.log": "", ".dockerignore": ""})
    (root / ".dockerignore").write_text("**/*.log\ngone\n")
    (root / "checkpoints" / "deep").mkdir(parents=True)
    (root / "pkg" / "__pycache__").mkdir(parents=True)
    files = collect(root).files
    assert [file.path for file in files if file.is_folder] == ["checkpoints/deep", "emptied", "pkg"]
    recipe = SourceRecipe(root=root, files=files)
    assert recipe.title == "source, 2 files"
    made = cook(recipe).members
    assert all(made[f"workspace/{name}"].isdir() for name in ("checkpoints", "emptied", "pkg"))
    (root / "checkpoints" / "deep").rmdir()
    assert key(SourceRecipe(root=root, files=collect(root).files)) != key(recipe)
