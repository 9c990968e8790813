"""Which files of a wheel are left out of its layer: patterns on paths in site-packages.

The patterns are gitignore's (gitignore(5), "Pattern format"): ``torch/test/`` leaves out a
folder, ``torch/bin/test_*`` some files, ``!torch/bin/test_keep`` takes one back; the last
pattern that matches decides. A pattern with a slash inside starts at site-packages.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

from torchship.errors import UsageError


@lru_cache(maxsize=64)
def matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Return a test that is true for the paths, relative to site-packages, to leave out.

    Raises `UsageError` for a pattern that is none.
    """
    if not patterns:
        return _nothing
    # Imported here: most commands prune nothing.
    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore import GitIgnorePatternError

    for pattern in patterns:
        try:
            GitIgnoreSpec.from_lines([pattern])
        except GitIgnorePatternError:
            raise UsageError(
                f"prune: {pattern!r} is not a pattern",
                hint="patterns are those of .gitignore, such as torch/test/ or **/tests/",
            ) from None
    # A path is asked for twice: as a file, and as a row of the RECORD.
    return cache(GitIgnoreSpec.from_lines(patterns).match_file)


def _nothing(path: str) -> bool:  # noqa: ARG001 (the seam's shape)
    return False
