"""What holds for all tests."""

import signal


def pytest_configure(config):
    """Take Ctrl-C as a terminal would send it, also where a shell started us with it ignored.

    Programs inherit an ignored signal, torchship respects that, and the tests of Ctrl-C would
    wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
