"""The commit of a checkout, by the real git, whatever the checkout's own settings are."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from torchship.project.revision import revision

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def git(tmp_path, monkeypatch):
    """Give git in a checkout with one commit of two files, and the checkout."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    root = tmp_path / "checkout"
    root.mkdir()

    def run(*arguments, at=root):
        names = ("-c", "user.name=a", "-c", "user.email=a@b.invalid", "-c", "protocol.allow=always")
        done = subprocess.run(
            ["git", *names, *arguments], cwd=at, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    run("init", "-q")
    (root / "a.txt").write_text("a\n")
    (root / "b.txt").write_text("b\n")
    run("add", ".")
    run("commit", "-q", "-m", "first")
    return run, root


def test_a_clean_checkout_is_its_commit_and_a_changed_one_is_dirty(git, tmp_path):
    """Files that git does not know count, too; a directory that is no checkout is none."""
    run, root = git
    found = revision(root)
    assert (found.commit, found.dirty) == (run("rev-parse", "HEAD"), False)
    (root / "new").write_text("")
    assert revision(root).dirty
    assert revision(tmp_path) is None


def programs(canary):
    """Return the settings by which git would start a program that leaves a canary."""
    start = f"sh -c 'touch {canary}; cat'"
    return {
        "clean": {"filter.x.clean": start},
        "process": {"filter.x.process": start, "filter.x.required": "true"},
        "odd": {"filter.x=y.clean": start, "filter.x.clean": start},
        "fsmonitor": {"core.fsmonitor": start},
        "lfs": {"lfs.extension.x.clean": start},
    }


@pytest.mark.parametrize("form", ["clean", "process", "odd", "fsmonitor", "lfs", "hook", "include"])
def test_no_program_that_a_checkout_names_is_started(git, tmp_path, form):
    """Not its filters, its monitor or its hooks, wherever its settings stand."""
    run, root = git
    canary = tmp_path / "canary"
    (root / ".gitattributes").write_text("* filter=x\n")
    run("add", ".")
    run("commit", "-q", "-m", "second")
    commit = run("rev-parse", "HEAD")
    for name, value in programs(canary).get(form, {}).items():
        run("config", name, value)
    if form == "include":
        (root / ".git" / "more").write_text(f'[filter "x"]\nclean = touch {canary}; cat\n')
        run("config", "include.path", "more")
    if form == "hook":
        hook = root / ".git" / "hooks" / "post-index-change"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {canary}\n")
        hook.chmod(0o755)
    os.utime(root / "a.txt", (1, 1))  # so that git looks into it
    found = revision(root)
    assert not canary.exists()
    assert found.commit == commit
    assert found.dirty == (form in ("odd", "lfs"))


def test_submodules_are_another_commit_and_not_looked_into(git, tmp_path):
    """Their settings name programs, too."""
    run, root = git
    other, canary = tmp_path / "other", tmp_path / "canary"
    run("clone", "-q", str(root), str(other))
    run("submodule", "--quiet", "add", str(other), "sub")
    run("commit", "-q", "-m", "with")
    run("config", "filter.x.clean", f"sh -c 'touch {canary}; cat'", at=root / "sub")
    (root / "sub" / ".gitattributes").write_text("* filter=x\n")
    os.utime(root / "sub" / "a.txt", (1, 1))
    assert not revision(root).dirty
    assert not canary.exists()
    run("-C", "sub", "commit", "--allow-empty", "-q", "-m", "further")
    assert revision(root).dirty


def test_nothing_is_fetched(git, tmp_path):
    """A checkout that lacks objects would have git ask a remote, by a program of its choice."""
    run, root = git
    canary = tmp_path / "canary"
    run("config", "remote.origin.url", str(root))
    run("config", "remote.origin.promisor", "true")
    run("config", "remote.origin.uploadpack", f"touch {canary}; git-upload-pack")
    run("config", "protocol.file.allow", "always")
    run("config", "core.repositoryformatversion", "1")
    run("config", "extensions.partialClone", "origin")
    blob = run("rev-parse", "HEAD:a.txt")
    tree = run("rev-parse", "HEAD^{tree}")
    for digest in (blob, tree):
        (root / ".git" / "objects" / digest[:2] / digest[2:]).unlink()
    os.utime(root / "a.txt", (1, 1))
    assert revision(root).dirty
    assert not canary.exists()
