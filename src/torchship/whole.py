"""Files that are there whole or not at all, in folders that may be a stranger's."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """Write a file in place of whatever had its name: a link is replaced, never followed.

    What was there stays until the new bytes are all written. Raises `OSError`.
    """
    part = path.with_name(f".{os.urandom(8).hex()}.part")
    try:
        with part.open("xb") as stream:
            stream.write(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
