"""The only encoder of JSON that is hashed.

Sorted keys, no white space, UTF-8, no NaN: the same value gives the same bytes on every
machine. JSON that came from elsewhere is never re-encoded: its raw bytes are kept and hashed.
"""

from __future__ import annotations

import json


def encode(value: object) -> bytes:
    """Encode a JSON value in the one form that torchship hashes.

    Raises `ValueError` for NaN and infinities, which JSON has no words for.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")
