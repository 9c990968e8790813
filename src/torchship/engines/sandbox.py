"""The program that becomes a container: namespaces, root file system, init, and the program.

`container` starts it with a Python of its own (``-I -S``), an empty environment, and two
descriptors: a specification (marshalled) and a socket. It answers on the socket, one message
each: an error, the program's start (with the terminal's master, where one was asked for), its
exit status. Each byte that comes on the socket is a signal for the program; the socket's end
means that the caller is gone, and ends everything.

    outer process   new user, mount, pid, ipc, uts, cgroup and (mostly) net namespaces
    `- init         pid 1: builds the root, drops everything, starts, reaps, forwards signals
       `- program   a session of its own

Nothing here may import more of torchship than `rootfs`, `program` and `syscalls`, or heavy modules:
a container must start in a few hundredths of a second.
"""

from __future__ import annotations

import _socket  # socket, signal and typing cost 15 ms of every start: here is what they stand on
import fcntl
import marshal
import os
import resource
import select
import sys

from torchship.engines import program, rootfs, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn

    from torchship.engines.specification import Specification
else:
    import _signal as signal

KILL_ALL = 9  # SIGKILL


def main() -> NoReturn:
    """Read the specification and become the container; exit with the program's status."""
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, int(sys.argv[2]))
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
    if uid == 0 and _may_set_groups():
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


def _may_set_groups() -> bool:
    """Tell whether root may drop its groups; in the namespace of an ordinary user it may not.

    Source: user_namespaces(7), "The /proc/pid/setgroups file".
    """
    with open("/proc/self/setgroups") as stream:  # noqa: PTH123
        return stream.read().strip() == "allow"


def _init(specification: Specification, control: _socket.socket) -> NoReturn:
    """Be pid 1: when it ends, the kernel kills whatever else runs in the container."""
    stage = "root file system"
    try:
        _import_no_more()
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


def _import_no_more() -> None:
    """Forget where modules come from: soon those paths lead into the image."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_importer_cache.clear()


def _loopback_up() -> None:
    """Bring ``lo`` up: torch.distributed talks to itself on 127.0.0.1."""
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 0x1  # netdevice(7)
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    request = bytearray(b"lo".ljust(40, b"\0"))
    fcntl.ioctl(any_socket.fileno(), siocgifflags, request)
    flags = int.from_bytes(request[16:18], sys.byteorder) | iff_up
    request[16:18] = flags.to_bytes(2, sys.byteorder)
    fcntl.ioctl(any_socket.fileno(), siocsifflags, request)
    any_socket.close()


def _serve(specification: Specification, control: _socket.socket) -> NoReturn:
    """Start the program; reap and forward until it ends, then report and end."""
    master, slave = program.make_terminal(specification["terminal"])
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    syscalls.hide_from_others()  # before there is another; executing the program undoes it there
    child = program.start(specification, slave)
    with open("/dev/null", "r+b") as null:  # noqa: PTH123
        for descriptor in (0, 1, 2):
            os.dup2(null.fileno(), descriptor)
    if slave is not None and master is not None:
        os.close(slave)
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, sys.byteorder))]
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
                _reap(child, control)
            else:
                _forward(child, control.recv(1))


def _reap(child: int, control: _socket.socket) -> None:
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if ended == 0:
            return
        if ended == child:
            code = exit_status(status)
            control.send(marshal.dumps({"status": code}))
            os._exit(code)


def _forward(child: int, message: bytes) -> None:
    if not message or message[0] == KILL_ALL:
        os._exit(128 + KILL_ALL)
    number = message[0]
    try:
        if number in (signal.SIGINT, signal.SIGQUIT):
            os.killpg(child, number)  # as a terminal does, to all of the foreground group
        else:
            os.kill(child, number)
    except ProcessLookupError:
        pass  # it has ended, and SIGCHLD is on its way


def _fail(control: _socket.socket, stage: str, error: OSError) -> NoReturn:
    said = error.strerror or str(error)
    if error.filename is not None:
        said = f"{os.fsdecode(error.filename)}: {said}"
    control.send(marshal.dumps({"stage": stage, "error": said}))
    os._exit(125)
