"""How long a client goes on trying."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from torchship.errors import RegistryError
from torchship.oci.registry.patience import Interrupted, Patience, Tries, retry_after


def test_retry_after_is_read_as_seconds_or_as_a_date():
    """Both forms give seconds from now; the past is now, and nonsense is nothing."""
    assert retry_after("17") == 17
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < retry_after(later) <= 60
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("soon") is None
    assert retry_after("-3") is None
    assert retry_after(None) is None


def test_the_last_fault_is_raised_when_the_attempts_are_used_up():
    """Three attempts are two waits and then the fault itself."""
    tries, fault = Tries(Patience(attempts=3, first=0.001)), Interrupted("cut")
    tries.failed(fault)
    tries.failed(fault)
    with pytest.raises(Interrupted) as caught:
        tries.failed(fault)
    assert caught.value is fault


def test_progress_begins_the_count_again():
    """Failures between which something was achieved do not add up."""
    tries = Tries(Patience(attempts=2, first=0.001))
    for _ in range(5):
        tries.failed(Interrupted("cut"))
        tries.progressed()


def test_waits_grow_to_a_bound():
    """The back-off doubles, but no wait is longer than the longest."""
    tries = Tries(Patience(attempts=9, first=0.01, longest=0.02))
    began = time.monotonic()
    for _ in range(8):
        tries.failed(Interrupted("cut"))
    assert 0.05 < time.monotonic() - began < 1.0


def test_a_wait_that_is_too_long_is_an_error_that_says_so():
    """The caller is told how long the other side wants to be left alone."""
    fault = Interrupted("busy", status=429)
    fault.after = 600.0
    with pytest.raises(RegistryError, match="600 seconds") as caught:
        Tries(Patience(longest=10)).failed(fault)
    assert caught.value.status == 429
