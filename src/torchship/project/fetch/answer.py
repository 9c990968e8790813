"""What an HTTP answer means for a download: to go on, to try again, or to leave the source.

Source: RFC 9110, sections 10.2.3 (Retry-After), 14.4 (Content-Range) and 15 (status).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from torchship.project.fetch.part import Part, SourceFailed

_PATIENCE = 120.0  # seconds: a server that asks for a longer pause is left


def continues(status: int, headers: Mapping[str, str], part: Part) -> bool:
    """Return whether the body of an answer begins where the part ends."""
    if status != 206:
        return part.done == 0
    # RFC 9110, 14.4: Content-Range: bytes 5-9/10
    expected = f"bytes {part.done}-{part.size - 1}/"
    if not headers.get("Content-Range", "").startswith(expected):
        raise SourceFailed("answers with another range than was asked for")
    return True


def judge(status: int, reason: str | None, headers: Mapping[str, str]) -> None:
    """Raise `SourceFailed` for an answer that holds no file."""
    if status in (200, 206, 416):
        return
    text = f"answers {status} {reason or ''}".rstrip()
    if status in (404, 410):
        raise SourceFailed(text, gone=True)
    if status in (408, 429, 500, 502, 503, 504):
        pause = _pause(headers.get("Retry-After", ""))
        if pause > _PATIENCE:
            raise SourceFailed(f"{text}, and asks to come back in {pause:.0f} s")
        raise SourceFailed(text, retry=pause)
    raise SourceFailed(text)


def _pause(retry_after: str) -> float:
    # RFC 9110, 10.2.3: Retry-After = HTTP-date / delay-seconds
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())
