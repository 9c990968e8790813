"""What an HTTP answer means for a download: to go on, to try again, or to leave the source.

Source: RFC 9110, sections 10.2.3 (Retry-After), 14.4 (Content-Range) and 15 (status).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchship.project.part import Part, SourceFailed

if TYPE_CHECKING:
    import urllib3

_PATIENCE = 120.0  # seconds: a server that asks for a longer pause is left


def continues(response: urllib3.BaseHTTPResponse, part: Part) -> bool:
    """Return whether the body of an answer begins where the part ends."""
    if response.status != 206:
        return part.done == 0
    # RFC 9110, 14.4: Content-Range: bytes 5-9/10
    expected = f"bytes {part.done}-{part.size - 1}/"
    if not response.headers.get("Content-Range", "").startswith(expected):
        raise SourceFailed("answers with another range than was asked for")
    return True


def judge(response: urllib3.BaseHTTPResponse) -> None:
    """Raise `SourceFailed` for an answer that holds no file."""
    status = response.status
    if status in (200, 206, 416):
        return
    reason = f"answers {status} {response.reason or ''}".rstrip()
    if status in (404, 410):
        raise SourceFailed(reason, gone=True)
    if status in (408, 429, 500, 502, 503, 504):
        pause = _pause(response.headers.get("Retry-After"))
        if pause > _PATIENCE:
            raise SourceFailed(f"{reason}, and asks to come back in {pause:.0f} s")
        raise SourceFailed(reason, retry=pause)
    raise SourceFailed(reason)


def _pause(retry_after: str | None) -> float:
    import urllib3

    if not retry_after:
        return 0.0
    try:
        return urllib3.Retry().parse_retry_after(retry_after)
    except urllib3.exceptions.InvalidHeader:
        return 0.0


def worded(error: urllib3.exceptions.HTTPError) -> SourceFailed:
    """Say in plain words what went wrong below HTTP."""
    from urllib3 import exceptions

    # The texts of urllib3 show addresses whole; and what is wrong with a name or with a
    # certificate does not pass in a second.
    if isinstance(error, exceptions.NameResolutionError):
        return SourceFailed("the name of the host is not known here", unreachable=True)
    if isinstance(error, exceptions.SSLError):
        return SourceFailed("its certificate is not trusted, or TLS fails", unreachable=True)
    if isinstance(error, exceptions.ProxyError):
        return SourceFailed("the proxy refuses or fails", unreachable=True)
    if isinstance(error, exceptions.ConnectTimeoutError):
        return SourceFailed("does not answer in time", unreachable=True)
    if isinstance(error, exceptions.ReadTimeoutError):
        return SourceFailed("stopped sending", retry=0.0)
    if isinstance(error, exceptions.NewConnectionError):
        return SourceFailed("no connection", retry=0.0, unreachable=True)
    if isinstance(error, exceptions.ProtocolError):
        return SourceFailed("hung up", retry=0.0)
    return SourceFailed(f"fails ({type(error).__name__})")
