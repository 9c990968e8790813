"""How long to go on trying: back-off, and what the other side asks for with Retry-After."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from msgspec import Struct

from torchship.errors import RegistryError

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed (RFC 9110, sections 15.5.9 and 15.6)."""


class Interrupted(RegistryError):
    """A request failed in a way that may pass; ``after`` is the wait asked for, in seconds."""

    after: float | None = None


class Patience(Struct, frozen=True, kw_only=True):
    """All the waiting there is, in seconds; ``attempts`` counts those without progress."""

    attempts: int = 6
    first: float = 0.5
    longest: float = 120.0
    connect: float = 10.0
    silence: float = 60.0


class Tries:
    """Counts failures of one piece of work, and waits between them."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failures = 0

    def progressed(self) -> None:
        """Say that something was achieved: a long transfer may be cut any number of times."""
        self._failures = 0

    def failed(self, fault: Interrupted) -> None:
        """Wait before the next try; raise the fault itself where it is time to give up."""
        self._failures += 1
        if self._failures >= self._patience.attempts:
            raise fault
        if fault.after is not None:
            if fault.after > self._patience.longest:
                raise RegistryError(
                    f"{fault.message}; it asks to wait {fault.after:.0f} seconds",
                    hint="try again later; a login often raises the limit: torchship login HOST",
                    request=fault.request,
                    status=fault.status,
                    code=fault.code,
                ) from fault
            time.sleep(fault.after)
            return
        delay = min(self._patience.longest, self._patience.first * 2 ** (self._failures - 1))
        # Half of it by chance, so that many clients do not come back in step.
        time.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 (spreads load, hides nothing)


def retry_after(text: str | None) -> float | None:
    """Read a Retry-After field, seconds or a date (RFC 9110, section 10.2.3), as seconds."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
