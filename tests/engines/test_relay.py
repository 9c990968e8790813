"""What is passed on between a program and the caller."""

import os
import signal
import threading
import time

from torchship.engines.relay import write_all


def test_all_is_written_where_each_write_takes_a_part():
    """A signal ends a write to a full pipe early: what was not taken follows."""
    source, sink = os.pipe()
    data = os.urandom(1_000_000)
    found = bytearray()

    def read():
        time.sleep(0.1)
        while piece := os.read(source, 1 << 16):
            found.extend(piece)
            time.sleep(0.005)

    reader = threading.Thread(target=read)
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        reader.start()
        write_all(sink, data)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(sink)
        reader.join(10)
        os.close(source)
    assert bytes(found) == data
