"""Which commit a project's directory is a checkout of, as git says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from msgspec import Struct


class Revision(Struct, frozen=True, kw_only=True):
    """``commit`` is the full hash; ``dirty`` tells that files below the directory were changed."""

    commit: str
    dirty: bool


def revision(root: Path) -> Revision | None:
    """Return the commit of a project's directory; None where it is none of git's, or has no git."""
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None or not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", commit.strip()):
        return None
    changes = _git(root, "status", "--porcelain", "--", ".")
    return Revision(commit=commit.strip(), dirty=changes is None or bool(changes.strip()))


def _git(root: Path, *arguments: str) -> str | None:
    # fsmonitor would start a program that the checkout names
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
