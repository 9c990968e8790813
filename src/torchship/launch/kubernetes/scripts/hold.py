"""The only program of a pod: runs a command, then keeps the pod until its output was fetched.

    hold.py MARK SECONDS ERRORS COMMAND...

A finished pod's files cannot be had any more. So the pod of index 0 writes a line to its
log, MARK STATUS PID, and waits for SIGUSR1 from whoever fetched the files, at most SECONDS.
ERRORS is "drop" where the log is to hold the command's standard output alone. The exit
status is the command's: 128 + N after signal N, 127 where there is no such command.
"""

import os
import signal
import subprocess
import sys

SIGNALS = {signal.SIGUSR1, signal.SIGTERM}


def main() -> int:
    """Return the command's exit status, when its output was fetched."""
    mark, seconds, errors, *command = sys.argv[1:]
    # Blocked, a signal that comes early is not lost; the command is to hear them
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        child = subprocess.Popen(
            command,
            stderr=subprocess.DEVNULL if errors == "drop" else None,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS),
        )
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    status = reap(child.pid)
    # A job that ends because of another node leaves time enough to fetch
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if int(seconds) > 0 and os.environ.get("JOB_COMPLETION_INDEX", "0") == "0":
        sys.stdout.write(f"\n{mark} {status} {os.getpid()}\n")
        sys.stdout.flush()
        signal.sigtimedwait({signal.SIGUSR1}, int(seconds))
    return status


def reap(pid: int) -> int:
    """Wait for a process and, as the pod's first, for all that others left behind."""
    while True:
        ended, found = os.waitpid(-1, 0)
        if ended == pid:
            status = os.waitstatus_to_exitcode(found)
            return 128 - status if status < 0 else status


sys.exit(main())
