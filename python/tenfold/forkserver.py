"""The fork server: a process that imports the main module once and forks children from there."""

import errno
import os
import socket
import struct
import sys

from . import (  # noqa: F401  (looked up by what is adopted)
    _alias,
    _family,
    connection,
    process,
    resource_tracker,
    spawn,
    util,
)
from ._original import adopt, adopt_seeing, mirror, overlay

std = mirror(globals(), "forkserver")


def _start_server(executable, arguments, descriptors):
    """Start the server's process; stands in for `util.spawnv_passfds` below."""
    *options, program = arguments
    invitation, heap = _family.invitation()
    first = f"from tenfold import _family, _worker; _family.arrive({invitation!r}); "
    if _alias.installed():
        first += "import tenfold; tenfold.install(); "
    # The main module shall see what it would see in a child.
    first += f"sys.argv = {sys.argv!r}; "
    program = spawn.child_program(program).replace("from tenfold.", first + "from tenfold.", 1)
    return util.spawnv_passfds(executable, [*options, program], [*descriptors, heap])


def _address_in_no_folder(family):
    """Return a new name for a socket; stands in for `connection.arbitrary_address` below.

    A name in a folder would stay there if the program is killed.
    """
    return f"\0tenfold-{os.urandom(16).hex()}"


class _Listener(socket.socket):
    """The server's socket. No folder keeps strangers from it, so it lets in this user only."""

    def accept(self):
        conn, address = super().accept()
        peer = conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", peer)[1] != os.geteuid():
            conn.close()
            # The server takes this as a client that has gone away.
            raise ConnectionAbortedError(errno.ECONNABORTED, "not a process of this user")
        return conn, address


def _preparation_for_server(name):
    """Return what the server must know; stands in for `spawn.get_preparation_data` below.

    The standard library's server is told to import the main module, but up to Python 3.13 not
    where it is, so that each child imports it again.
    """
    data = spawn.get_preparation_data(name)
    if "init_main_from_path" in data:
        data["main_path"] = data["init_main_from_path"]
    return data


class ForkServer(std.ForkServer):
    """The server as its clients see it."""

    ensure_running = adopt_seeing(
        std.ForkServer.ensure_running,
        std,
        __name__,
        connection=overlay(connection, arbitrary_address=_address_in_no_folder),
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


def _fork():
    """Fork a child; stands in for `os.fork` below."""
    pid = os.fork()
    if pid > 0:
        _family.forked(pid)
    return pid


def _reap(pid, options):
    """Reap a child; stands in for `os.waitpid` below."""
    pid, status = os.waitpid(pid, options)
    if pid > 0:
        _family.reaped(pid, status)
    return pid, status


_serve_one = adopt(std._serve_one, globals())

_forkserver = ForkServer()
ensure_running = _forkserver.ensure_running
get_inherited_fds = _forkserver.get_inherited_fds
connect_to_new_process = _forkserver.connect_to_new_process
set_forkserver_preload = _forkserver.set_forkserver_preload

# The server itself: the standard library's code, with the functions above.
main = adopt(
    std.main,
    {
        **globals(),
        "os": overlay(os, fork=_fork, waitpid=_reap),
        "socket": overlay(socket, socket=_Listener),
        "spawn": overlay(spawn, import_main_path=_import_main),
    },
)
