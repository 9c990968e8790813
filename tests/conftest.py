"""What holds for all tests."""

import signal


def pytest_configure(config):
    """Take Ctrl-C as a terminal would send it, and hangups, also where we were to ignore them.

    A shell may start us with Ctrl-C ignored, and nohup with hangups.

    Programs inherit an ignored signal, torchship respects that, and the tests of Ctrl-C would
    wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
