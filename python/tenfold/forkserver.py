"""The fork server: a process that imports the main module once and forks children from there.

    client                                        server
    socket, descriptors of two pipes ───────────▶ fork
    pid, or minus the error number ◀───────────── (status pipe)
    preparation data, process object ───────────▶ child: reads them from the data pipe
    exit code ◀─────────────────────────────────  reaps it (status pipe)

Nothing is sent to a child before its pid is known. So a child whose server is killed between the
fork and the pid finds no program to run, and the client can ask the next server for another.
"""

import _signal
import contextlib
import errno
import gc
import os
import select
import selectors
import signal
import socket
import sys

from . import (  # noqa: F401  (looked up by what is adopted)
    _abstract,
    _alias,
    _ctrl_c,
    _family,
    connection,
    process,
    resource_tracker,
    spawn,
    util,
)
from ._original import adopt, adopt_seeing, mirror, overlay

std = mirror(globals(), "forkserver")
read_signed, write_signed, reduction = std.read_signed, std.write_signed, std.reduction


def _start_server(executable, arguments, descriptors):
    """Start the server's process; stands in for `util.spawnv_passfds` below."""
    *options, program = arguments
    invitation, heap = _family.invitation()
    first = f"from tenfold import _family, _worker; _family.arrive({invitation!r}); "
    if _alias.installed():
        first += "import tenfold; tenfold.install(); "
    # The main module shall see what it would see in a child.
    first += f"sys.argv = {sys.argv!r}; "
    with _ctrl_c.deaf() as mask:
        if signal.SIGINT not in mask:
            first += "from tenfold import _ctrl_c; _ctrl_c.held_back = True; "
        program = spawn.child_program(program).replace("from tenfold.", first + "from tenfold.", 1)
        return _family.execute(executable, [*options, program], [*descriptors, heap])


def _preparation_for_server(name):
    """Return what the server must know; stands in for `spawn.get_preparation_data` below.

    The standard library's server is told to import the main module, but up to Python 3.13 not
    where it is, so that each child imports it again.
    """
    data = spawn.get_preparation_data(name)
    if "init_main_from_path" in data:
        data["main_path"] = data["init_main_from_path"]
    return data


# So many servers are tried for a child, if one after the other is killed.
_TRIES = 3
# A server that was seen stopped so many times in a row, once a second, is not waited for.
_STOPPED_MAX = 5


def _stat(pid):
    """What the kernel says of a process, from its state on; nothing if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()
    except OSError:
        return []


def is_stopped(pid):
    """Whether a process is there and takes no part, since somebody sent it SIGSTOP."""
    return _stat(pid)[:1] == [b"T"]


def status_of_zombie(pid):
    """How a process ended that is still to be reaped, as `os.waitpid` would give it, or None."""
    stat = _stat(pid)
    return int(stat[-1]) if stat[:1] == [b"Z"] else None


def _ensure_tracker():
    """Have a resource tracker; stands in for `resource_tracker.ensure_running` below.

    The standard library wakes it up each time, to see whether it is there.
    """
    pid = resource_tracker._resource_tracker._pid
    if pid is None or not _is_running(pid):
        resource_tracker.ensure_running()


def _is_running(child):
    """Whether a child of this process's own has not ended; it is not reaped."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _tracker_fd():
    """The tracker's descriptor; stands in for `resource_tracker.getfd` below."""
    _ensure_tracker()
    return resource_tracker._resource_tracker._fd


_tracker = overlay(resource_tracker, ensure_running=_ensure_tracker, getfd=_tracker_fd)
# Servers that are no children of this process, and that have ended.
_gone = set()


def _look_at_server(pid, options):
    """Reap a server that has ended; stands in for `os.waitpid` below."""
    try:
        return os.waitpid(pid, options)
    except ChildProcessError:
        # Another has reaped it, or this process is a fork of the one that made it and may use it.
        return (pid if pid in _gone else 0), 0


class ForkServer(std.ForkServer):
    """The server as its clients see it."""

    def new_child(self, fds):
        """Have a child forked; returns its status pipe, its data pipe, and its pid.

        A server that dies meanwhile is replaced. One that is stopped is a TimeoutError.
        """
        tries = 1
        while True:
            self.ensure_running()
            server = self._forkserver_pid
            try:
                return self._ask(fds, server)
            except (ConnectionError, EOFError):
                if tries == _TRIES:
                    raise
            self._give_up(server)
            tries += 1

    def _ask(self, fds, server):
        status, data = self.connect_to_new_process(fds)
        try:
            pid = self._await_pid(status, server)
        except BaseException:
            os.close(status)
            os.close(data)
            raise
        return status, data, pid

    def _await_pid(self, status, server):
        poll = select.poll()
        poll.register(status, select.POLLIN)
        stopped = 0
        # Looks are counted, not seconds: this process may have been stopped together with it.
        while not poll.poll(1000):
            stopped = stopped + 1 if is_stopped(server) else 0
            if stopped >= _STOPPED_MAX:
                raise TimeoutError(
                    f"the fork server (pid {server}) is stopped: send it SIGCONT, or SIGKILL and "
                    "the next start makes another"
                )
        answer = read_signed(status)
        if answer < 0:
            raise OSError(-answer, f"the fork server cannot fork: {os.strerror(-answer)}")
        return answer

    def _give_up(self, server):
        """See to it that the next start makes another server; this one answers no more."""
        try:
            # It may be about to die: then it is not there any more, and yet cannot be reaped.
            if os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                os.kill(server, signal.SIGKILL)
                os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            _gone.add(server)

    connect_to_new_process = adopt_seeing(
        std.ForkServer.connect_to_new_process, std, __name__, resource_tracker=_tracker
    )
    ensure_running = adopt_seeing(
        std.ForkServer.ensure_running,
        std,
        __name__,
        connection=overlay(connection, arbitrary_address=_abstract.new_address),
        os=overlay(os, waitpid=_look_at_server),
        resource_tracker=_tracker,
        spawn=overlay(spawn, get_preparation_data=_preparation_for_server),
        util=overlay(util, spawnv_passfds=_start_server),
    )


def _import_main(path):
    """Import the main module, so that no child has to; stands in for `spawn.import_main_path`.

    One that cannot be imported is left to the children, whose failures are reported one by one.
    """
    before = sys.modules["__main__"]
    try:
        spawn.import_main_path(path)
    except BaseException:
        sys.modules["__main__"] = before
        sys.modules.pop("__mp_main__", None)
    # What is buffered would be written by each child again.
    util._flush_std_streams()


# Whether children are to collect garbage, which the server does not.
_collects = True
# The descriptors of the request that is being answered: the child's pipes, and what it inherits.
_received = []


def _receive(conn, size):
    """Take a request; stands in for `reduction.recvfds` below."""
    _received[:] = reduction.recvfds(conn, size)
    return list(_received)


def _fork():
    """Fork a child; stands in for `os.fork` below."""
    try:
        pid = os.fork()
    except OSError as error:
        _family.not_forked()
        _refuse(error)
        # The server takes this as a client that has gone away.
        raise ConnectionAbortedError(errno.ECONNABORTED, "no process for a request") from None
    if pid > 0:
        _family.forked(pid)
    return pid


def _refuse(error):
    """Tell the client why there is no child."""
    child_r, status, *inherited = _received
    for fd in (child_r, *inherited):
        os.close(fd)
    with contextlib.suppress(BrokenPipeError):
        write_signed(status, -error.errno)
    os.close(status)


def _reap(pid, options):
    """Reap a child; stands in for `os.waitpid` below."""
    pid, status = os.waitpid(pid, options)
    if pid > 0:
        _family.reaped(pid, status)
    return pid, status


class _Selector(selectors.DefaultSelector):
    """What the server waits with. It is made when all is imported that children are to inherit.

    A garbage collection in a child would write to each object, and copy each page that has one.
    """

    def __init__(self):
        super().__init__()
        global _collects
        _collects = gc.isenabled()
        gc.disable()
        gc.freeze()


def _main_if_asked(child_r, parent_sentinel):
    """Be a child, unless the client has gone; stands in for `spawn._main` below."""
    if _collects:
        gc.enable()
    poll = select.poll()
    poll.register(child_r, select.POLLIN)
    ((_, event),) = poll.poll()
    if not event & select.POLLIN:
        os._exit(1)
    return spawn._main(child_r, parent_sentinel)


_forkserver = ForkServer()
ensure_running = _forkserver.ensure_running
get_inherited_fds = _forkserver.get_inherited_fds
connect_to_new_process = _forkserver.connect_to_new_process
set_forkserver_preload = _forkserver.set_forkserver_preload

# The module `signal` makes an enum of each number; a child would copy the pages of all that code.
_plain_signal = overlay(signal, signal=_signal.signal, SIG_IGN=_signal.SIG_IGN)

_serve_one = adopt(
    std._serve_one,
    {
        **globals(),
        "signal": _plain_signal,
        "spawn": overlay(spawn, _main=_main_if_asked),
    },
)

# The server itself: the standard library's code, with the functions above.
main = adopt(
    std.main,
    {
        **globals(),
        "os": overlay(os, fork=_fork, waitpid=_reap),
        "reduction": overlay(reduction, recvfds=_receive),
        "selectors": overlay(selectors, DefaultSelector=_Selector),
        "signal": _plain_signal,
        "socket": overlay(socket, socket=_abstract.Listener),
        "spawn": overlay(spawn, import_main_path=_import_main),
    },
)
