"""The only program of a pod: runs a command, then keeps the pod until its output was fetched.

    hold.py MARK SECONDS ERRORS COMMAND...

A finished pod's files cannot be had any more. So the pod of index 0 writes a line to its
log, MARK STATUS PID, and waits: at most SECONDS, until SIGUSR2 says that its files are being
fetched, and as long again until SIGUSR1 says that they were. ERRORS is "drop" where the log
is to hold the command's standard output alone. The exit status is the command's: 128 + N
after signal N, 127 where there is no such command.
"""

import os
import signal
import subprocess
import sys

SIGNALS = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}
SHORT = 5  # seconds that a pod waits which is to end: another node has failed, or the user left


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
    told = []

    def end(*_: object) -> None:
        told.append(True)
        child.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    status = reap(child.pid)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if int(seconds) > 0 and os.environ.get("JOB_COMPLETION_INDEX", "0") == "0":
        sys.stdout.write(f"\n{mark} {status} {os.getpid()}\n")
        sys.stdout.flush()
        wait(SHORT if told else int(seconds), int(seconds))
    return status


def wait(patience: int, longest: int) -> None:
    """Return when the files were fetched, or nobody does within so many seconds."""
    fetching = False
    while (heard := signal.sigtimedwait(SIGNALS, patience)) is not None:
        if heard.si_signo == signal.SIGUSR1:
            return
        fetching = fetching or heard.si_signo == signal.SIGUSR2
        patience = longest if fetching else SHORT


def reap(pid: int) -> int:
    """Wait for a process and, as the pod's first, for all that others left behind."""
    while True:
        ended, found = os.waitpid(-1, 0)
        if ended == pid:
            status = os.waitstatus_to_exitcode(found)
            return 128 - status if status < 0 else status


sys.exit(main())
