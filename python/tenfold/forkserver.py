"""The fork server: a process that imports the main module once and forks children from there."""

import types

from . import (  # noqa: F401  (looked up by what is adopted)
    _alias,
    _family,
    resource_tracker,
    spawn,
    util,
)
from ._original import adopt, mirror

std = mirror(globals(), "forkserver")


def _start_server(executable, arguments, descriptors):
    """Start the server's process; stands in for `util.spawnv_passfds` below."""
    *options, program = arguments
    invitation, heap = _family.invitation()
    first = f"from tenfold import _family; _family.arrive({invitation!r}); "
    if _alias.installed():
        first += "import tenfold; tenfold.install(); "
    program = spawn.child_program(program).replace("from tenfold.", first + "from tenfold.", 1)
    return util.spawnv_passfds(executable, [*options, program], [*descriptors, heap])


class ForkServer(std.ForkServer):
    """The server as its clients see it."""

    ensure_running = adopt(
        std.ForkServer.ensure_running,
        {
            **vars(std),
            "__name__": __name__,
            "spawn": spawn,
            "util": types.SimpleNamespace(**{**vars(util), "spawnv_passfds": _start_server}),
        },
    )


_standard_serve_one = adopt(std._serve_one, globals())


def _serve_one(*arguments):
    """Be the child; runs in the new process, right after the server's fork."""
    return _standard_serve_one(*arguments)


# The server itself: the standard library's code, with the functions above.
main = adopt(std.main, globals())

_forkserver = ForkServer()
ensure_running = _forkserver.ensure_running
get_inherited_fds = _forkserver.get_inherited_fds
connect_to_new_process = _forkserver.connect_to_new_process
set_forkserver_preload = _forkserver.set_forkserver_preload
