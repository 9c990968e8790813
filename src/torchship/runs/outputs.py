"""What a run wrote, by digest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torchship.digest import Digest
from torchship.runs import typed


def outputs(folder: Path) -> Mapping[str, Digest]:
    """Hash every regular file below an output directory; links are not followed.

    The names are as a record spells them: see `typed.text`.
    """
    return {
        typed.text(path.relative_to(folder).as_posix()): Digest.of_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
