"""``torchship init``: every setting with its default, written where the user can change it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from torchship.errors import ProjectError
from torchship.project import project as projects
from torchship.project import tables, textfile

_TEMPLATE = """\
[tool.torchship]
name = {name}  # the image's name
command = ["python", "main.py"]       # what `torchship run` and `docker run` start
python = "3.11"
base = "debian:bookworm"              # made of Debian packages; or any image reference
packages = []                         # further Debian packages, such as "git"
platforms = ["linux/amd64"]           # and "linux/arm64"
torch = "auto"                        # which build: cpu, cu130, ...; or several in a list
environment = {{ PYTHONUNBUFFERED = "1" }}
exclude = []                          # kept out of the image, on top of .dockerignore
prune = {prune}   # left out of wheels: what no run needs
bytecode = "imported"                 # which modules come compiled: "imported", "all", "none"
# seed = "--seed {{seed}}"              # how `torchship record` gives each run its seed

# A data file becomes a layer of its own; relative paths start at /workspace.
# [[tool.torchship.data]]
# path = "/data/train.gz"
# sha256 = "..."
# urls = ["https://..."]

# Where a result is found, and which way is better: what a reproduction is judged by.
# [tool.torchship.metrics.test_accuracy]
# file = "metrics.json"
# better = "higher"
"""


def init(root: Path) -> Path:
    """Write the spelled-out defaults into ``pyproject.toml`` of a directory; return its path.

    A file that exists keeps every byte, and gets the table appended. Nothing else is made:
    the experiment is the user's own. Raises `ProjectError` where the table is there already,
    or the file is not TOML that a table can be appended to; nothing is changed then.
    """
    if not root.is_dir():
        raise ProjectError(f"{root} is not a directory", hint=f"make it first: mkdir {root}")
    path = root / projects.PYPROJECT
    before = dict(tables.parse(path)) if path.exists() else {}
    tool = before.get("tool", {})
    if isinstance(tool, dict) and "torchship" in tool:
        raise ProjectError(
            f"{path} has a [tool.torchship] table already",
            hint="change it there, or take it out and run `torchship init` again",
        )
    text = textfile.read(path).decode("utf-8") if path.exists() else ""
    whole = _appended(text, defaults(projects.default_name(root, before)))
    if not _only_adds(before, whole):
        raise ProjectError(
            f"{path} defines `tool` in a way that no table can be appended to",
            hint="write `[tool.NAME]` tables there instead of one inline table",
        )
    textfile.write(path, whole)
    return path


def defaults(name: str) -> str:
    """Return the table as text, with the defaults that stand for absent keys."""
    prune = ", ".join(f'"{pattern}"' for pattern in projects.PRUNE)
    return _TEMPLATE.format(name=f'"{name}"', prune=f"[{prune}]")


def _appended(text: str, table: str) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    gap = "" if not text else end if text.endswith("\n") else end * 2
    return text + gap + table.replace("\n", end)


def _only_adds(before: dict[str, object], whole: str) -> bool:
    """Tell whether the new text says all that the old one did, and the table."""
    try:
        after = tomllib.loads(whole)
    except tomllib.TOMLDecodeError:
        return False
    tool = after.get("tool", {})
    tool.pop("torchship", None)
    if not tool and "tool" not in before:
        after.pop("tool")
    return after == before
