"""The name that was most likely meant where the store has none of that spelling."""

from __future__ import annotations

from collections.abc import Iterable

from torchship.oci.reference import LATEST, Reference

_ALIKE = 0.75  # of 1: one letter of four may be another


def nearest(text: str, there: Iterable[Reference]) -> str:
    """Return the name that is most like a text, as people write it; empty: none is like it."""
    from difflib import get_close_matches  # imported here, as a name is rarely mistyped

    names = [reference.familiar.removesuffix(f":{LATEST}") for reference in there]
    return next(iter(get_close_matches(text.lower(), names, n=1, cutoff=_ALIKE)), "")
