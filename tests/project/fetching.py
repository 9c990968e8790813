"""Files fetched, or one error that says of each why not: what a test would otherwise check."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from torchship.digest import Digest
from torchship.errors import FetchError
from torchship.progress import Progress
from torchship.project.fetch.attempt import Wanted, attempt, told
from torchship.project.fetch.mirrors import Mirrors


def fetch(
    wanted: Collection[Wanted], *, downloads: Path, mirrors: Mirrors, progress: Progress
) -> Mapping[Digest, Path]:
    """Return a verified file for each digest that is wanted, or raise a `FetchError`."""
    outcome = attempt(wanted, downloads=downloads, mirrors=mirrors, progress=progress)
    if outcome.failures:
        names = {one.digest: one.filename for one in wanted}
        raise FetchError(told({names[digest]: why for digest, why in outcome.failures.items()}))
    return outcome.files
