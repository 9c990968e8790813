"""Which commit a project's directory is a checkout of, as git says.

A checkout that was downloaded whole has a ``.git/config`` of a stranger's, and there it may name
programs that git starts to compare a file, to see what changed, or to fetch what is missing.
Sources: gitattributes(5), "filter"; git-config(1); git(1), ``GIT_ALLOW_PROTOCOL``.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

_NEVER = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "--no-optional-locks")
_FILTER = re.compile(r"filter\.[^=\n]+\.(clean|smudge|process|required)")


class Revision(Struct, frozen=True, kw_only=True):
    """``commit`` is the full hash; ``dirty`` tells that files below the directory were changed."""

    commit: str
    dirty: bool


def revision(root: Path) -> Revision | None:
    """Return the commit of a project's directory; None where it is none of git's, or has no git.

    No program is started that the checkout itself names. What cannot be told without is dirty.
    """
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None or not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", commit.strip()):
        return None
    return Revision(commit=commit.strip(), dirty=_is_dirty(root))


def _is_dirty(root: Path) -> bool:
    listed = _git(root, "config", "--list", "--show-scope", "--name-only", "--null")
    words = (listed or "").split("\0")
    own = {
        name
        for scope, name in zip(words[::2], words[1::2], strict=False)
        if scope in ("local", "worktree") and name.startswith(("filter.", "lfs.extension."))
    }
    if listed is None or not all(_FILTER.fullmatch(name) for name in own):
        return True
    off = [word for name in sorted(own) for word in ("-c", f"{name}={_nothing(name)}")]
    # a submodule has a config of its own, and is another's work: its commit counts
    ask = ("status", "--porcelain", "--ignore-submodules=dirty", "--", ".")
    changes = _git(root, *ask, settings=off)
    return changes is None or bool(changes.strip())


def _nothing(name: str) -> str:
    return "false" if name.endswith(".required") else ""


def _git(root: Path, *arguments: str, settings: Sequence[str] = ()) -> str | None:
    command = ["git", *_NEVER, *settings, "-C", str(root), *arguments]
    environment = {**os.environ, "GIT_ALLOW_PROTOCOL": "none"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
