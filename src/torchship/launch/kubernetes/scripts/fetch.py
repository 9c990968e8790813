"""Writes a folder as a tar archive to standard output, then waits to hear that it has arrived.

    fetch.py PID FOLDER

What a program says last may be lost when it ends (kubernetes/kubernetes issue 124571), so
this one stays until it reads a line. The process PID, which keeps the pod, is told before
and after.
"""

import os
import signal
import sys
import tarfile
from pathlib import Path


def main() -> int:
    """Return 0 where all has arrived."""
    pid, folder = int(sys.argv[1]), Path(sys.argv[2])
    os.kill(pid, signal.SIGUSR2)
    # "dereference": hard links become files; symlinks are left out
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", dereference=True) as archive:
        for path in sorted(folder.rglob("*")):
            if not path.is_symlink() and (path.is_file() or path.is_dir()):
                archive.add(path, arcname=str(path.relative_to(folder)), recursive=False)
    sys.stdout.buffer.flush()
    if sys.stdin.buffer.readline() != b"arrived\n":
        return 1
    os.kill(pid, signal.SIGUSR1)
    return 0


sys.exit(main())
