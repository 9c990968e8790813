"""The program that becomes a container: namespaces, root file system, init, and the program.

`container` starts it with a Python of its own (``-I -S``), an empty environment, and two
descriptors: a specification (marshalled) and a socket. It answers on the socket, one message
each: an error, the program's start (with the terminal's master, where one was asked for), its
exit status. Each byte that comes on the socket is a signal for the program; the socket's end
means that the caller is gone, and ends everything.

    outer process   new user, mount, pid, ipc, uts, cgroup and (mostly) net namespaces
    `- init         pid 1: builds the root, drops everything, starts, reaps, forwards signals
       `- program   a session of its own

Nothing here may import more of torchship than `rootfs` and `syscalls`, or heavy modules:
a container must start in a few hundredths of a second.
"""

from __future__ import annotations

import _socket
import array
import fcntl
import marshal
import os
import resource
import select
import signal
import sys
import termios
from typing import NoReturn, TypedDict

from torchship.engines import rootfs, syscalls

KILL_ALL = signal.SIGKILL


class Specification(TypedDict):
    """What the container is; plain values, for `marshal`."""

    uid: int
    gid: int
    hostname: str
    network: bool
    root: rootfs.RootSpecification
    command: list[bytes]
    environment: dict[bytes, bytes]
    workdir: bytes
    terminal: tuple[int, int] | None
    """Rows and columns of the terminal to make; None: standard streams are inherited."""
    processors: list[int] | None


def main() -> NoReturn:
    """Read the specification and become the container; exit with the program's status."""
    control = _socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(control.fileno(), False)
    with open(int(sys.argv[1]), "rb") as stream:  # noqa: PTH123
        specification: Specification = marshal.loads(stream.read())  # noqa: S302 (from our parent)
    try:
        _enter(specification)
        init = os.fork()
        if init == 0:
            _init(specification, control)
    except OSError as error:
        _fail(control, "namespaces", error)
    control.close()
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    _, status = os.waitpid(init, 0)
    os._exit(exit_status(status))


def exit_status(status: int) -> int:
    """Turn a wait status into a shell's exit status: 128 + N for a signal."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _enter(specification: Specification) -> None:
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        os.setgroups([])
    flags = (
        syscalls.CLONE_NEWUSER
        | syscalls.CLONE_NEWNS
        | syscalls.CLONE_NEWPID
        | syscalls.CLONE_NEWIPC
        | syscalls.CLONE_NEWUTS
        | syscalls.CLONE_NEWCGROUP
    )
    if not specification["network"]:
        flags |= syscalls.CLONE_NEWNET
    syscalls.unshare(flags)
    # user_namespaces(7): an unprivileged process may map only itself, and must deny setgroups
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{specification['uid']} {uid} 1"),
        ("gid_map", f"{specification['gid']} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as stream:  # noqa: PTH123
            stream.write(text)


def _init(specification: Specification, control: _socket.socket) -> NoReturn:
    """Be pid 1: when it ends, the kernel kills whatever else runs in the container."""
    stage = "root file system"
    try:
        syscalls.clear_command_line()
        _socket.sethostname(specification["hostname"])
        if not specification["network"]:
            stage = "loopback interface"
            _loopback_up()
            stage = "root file system"
        rootfs.build(specification["root"])
        stage = "privileges"
        syscalls.new_session_keyring()
        if specification["processors"] is not None:
            os.sched_setaffinity(0, specification["processors"])
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        syscalls.drop_privileges()
        stage = "program"
        _serve(specification, control)
    except OSError as error:
        _fail(control, stage, error)


def _loopback_up() -> None:
    """Bring ``lo`` up: torch.distributed talks to itself on 127.0.0.1."""
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 0x1  # netdevice(7)
    with _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM) as any_socket:
        request = bytearray(b"lo".ljust(40, b"\0"))
        fcntl.ioctl(any_socket.fileno(), siocgifflags, request)
        flags = int.from_bytes(request[16:18], sys.byteorder) | iff_up
        request[16:18] = flags.to_bytes(2, sys.byteorder)
        fcntl.ioctl(any_socket.fileno(), siocsifflags, request)


def _serve(specification: Specification, control: _socket.socket) -> NoReturn:
    """Start the program; reap and forward until it ends, then report and end."""
    master, slave = _terminal(specification["terminal"])
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    program = _start(specification, slave)
    syscalls.hide_from_others()
    with open("/dev/null", "r+b") as null:  # noqa: PTH123
        for descriptor in (0, 1, 2):
            os.dup2(null.fileno(), descriptor)
    if slave is not None and master is not None:
        os.close(slave)
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [master]))]
        control.sendmsg([marshal.dumps({"started": True})], rights)
        os.close(master)
    else:
        control.send(marshal.dumps({"started": True}))
    poll = select.poll()
    poll.register(control.fileno(), select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        for descriptor, _events in poll.poll():
            if descriptor == wake:
                os.read(wake, 4096)
                _reap(program, control)
            else:
                _forward(program, control.recv(1))


def _reap(program: int, control: _socket.socket) -> None:
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            return
        if child == program:
            code = exit_status(status)
            control.send(marshal.dumps({"status": code}))
            os._exit(code)


def _forward(program: int, message: bytes) -> None:
    if not message or message[0] == KILL_ALL:
        os._exit(128 + KILL_ALL)
    number = message[0]
    try:
        if number in (signal.SIGINT, signal.SIGQUIT):
            os.killpg(program, number)  # as a terminal does, to all of the foreground group
        else:
            os.kill(program, number)
    except ProcessLookupError:
        pass  # it has ended, and SIGCHLD is on its way


def _terminal(size: tuple[int, int] | None) -> tuple[int | None, int | None]:
    """Return master and slave of a terminal of the container's own, or nothing."""
    if size is None:
        return None, None
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, 0x40045431, bytes(4))  # TIOCSPTLCK, unlock: ioctl_tty(2)
    answer = fcntl.ioctl(master, 0x80045430, bytes(4))  # TIOCGPTN
    number = int.from_bytes(answer, sys.byteorder)
    slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    rows, columns = size
    window = array.array("H", [rows, columns, 0, 0])
    fcntl.ioctl(master, termios.TIOCSWINSZ, window)
    return master, slave


def _start(specification: Specification, slave: int | None) -> int:
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
        os.execvpe(  # noqa: S606 (the container's command: no shell on purpose)
            specification["command"][0], specification["command"], specification["environment"]
        )
    except OSError as error:
        os.write(write, marshal.dumps((error.errno, what)))
    os._exit(127)


def _fail(control: _socket.socket, stage: str, error: OSError) -> NoReturn:
    message = {"stage": stage, "errno": error.errno, "error": error.strerror or str(error)}
    control.send(marshal.dumps(message))
    os._exit(125)
