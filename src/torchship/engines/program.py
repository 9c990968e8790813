"""Starting the program of a container, from inside, with a terminal where one is wanted."""

from __future__ import annotations

import fcntl
import marshal
import os
import sys
import termios

TYPE_CHECKING = False  # typing, and signal in full, cost 13 ms of every start
if TYPE_CHECKING:
    import signal

    from torchship.engines.specification import Specification
else:
    import _signal as signal


def make_terminal(size: tuple[int, int] | None) -> tuple[int | None, int | None]:
    """Return master and slave of a terminal of the container's own, or nothing."""
    if size is None:
        return None, None
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, 0x40045431, bytes(4))  # TIOCSPTLCK, unlock: ioctl_tty(2)
    answer = fcntl.ioctl(master, 0x80045430, bytes(4))  # TIOCGPTN
    number = int.from_bytes(answer, sys.byteorder)
    slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    rows, columns = size
    window = b"".join(number.to_bytes(2, sys.byteorder) for number in (rows, columns, 0, 0))
    fcntl.ioctl(master, termios.TIOCSWINSZ, window)
    return master, slave


def start(specification: Specification, slave: int | None) -> int:
    """Fork and execute the program; raise `OSError` if it cannot be executed."""
    report, write = os.pipe()
    program = os.fork()
    if program:
        os.close(write)
        failure = os.read(report, 4096)
        os.close(report)
        if failure:
            number, what = marshal.loads(failure)  # noqa: S302 (from our child, before it executed)
            raise OSError(number, f"{what}: {os.strerror(number)}")
        return program
    what = "start"
    try:
        os.setsid()
        if slave is not None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for descriptor in (0, 1, 2):
                os.dup2(slave, descriptor)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if number < 32:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(0o022)
        what = os.fsdecode(specification["workdir"])
        os.chdir(specification["workdir"])
        what = os.fsdecode(specification["command"][0])
        _execute(specification["command"], specification["environment"])
    except OSError as error:
        os.write(write, marshal.dumps((error.errno, what)))
    os._exit(127)


def _execute(command: list[bytes], environment: dict[bytes, bytes]) -> None:
    """Execute a command as a shell finds it; return only by raising `OSError`.

    As execvp(3): a name without a slash is looked for in PATH, and "permission denied" is
    remembered. (os.execvpe would import a module from below the container's root.)
    """
    name = command[0]
    found: OSError | None = None
    folders = [b""] if b"/" in name else environment.get(b"PATH", b"/usr/bin:/bin").split(b":")
    for folder in folders:
        try:
            os.execve(os.path.join(folder, name), command, environment)  # noqa: S606, PTH118
        except (FileNotFoundError, NotADirectoryError) as error:
            found = found or error
        except PermissionError as error:
            found = error
    if found is not None:
        raise found
