"""Which processes belong to the program: what tenfold does around the start and the end of each.

    parent                                        child
    before_start: there is a heap and a warden
    fork ───────────────────────────────────────▶ arrive_by_fork
    exec, with the heap's descriptor ───────────▶ arrive(invitation)
    reaped(pid, status) ◀─────────────────────────  leave(code), exit
"""

import os
import sys
from multiprocessing import spawn, util

from . import _native

__all__ = ["arrive", "arrive_by_fork", "before_start", "invitation", "leave", "reaped"]

reaped = _native.reaped
leave = _native.leave

# A bare interpreter: it loads one extension module and nothing else, and never runs Python code again.
_WARDEN = """\
import _imp, sys
from importlib.machinery import ModuleSpec
spec = ModuleSpec("tenfold._native", None, origin=sys.argv[1])
native = _imp.create_dynamic(spec)
_imp.exec_dynamic(native)
native.run_warden(sys.argv[2])
"""


def _start_warden(invitation, fd):
    command = [spawn.get_executable(), "-I", "-S", "-c", _WARDEN, _native.__file__, invitation]
    return util.spawnv_passfds(command[0], command, [fd])


def before_start():
    """Make sure that somebody will end what is about to be started, should this program be killed."""
    if spawn.get_executable() and not getattr(sys, "frozen", False):
        _native.ensure_warden(_start_warden)


def invitation():
    """Return what lets an exec'd child join the family: a text, and the descriptor that it must inherit."""
    return _native.invite()


def arrive(invitation, daemon):
    """Join the family. In a child that was exec'd or comes from the fork server, before it unpickles anything."""
    _or_exit(_native.join, invitation, daemon=daemon)


def arrive_by_fork(daemon):
    """Take up this process's place in the family. In a child of fork, before it runs anything."""
    _or_exit(_native.settle, daemon=daemon)


def _or_exit(join, *args, **kwargs):
    try:
        join(*args, **kwargs)
    except _native.FamilyEnded:
        # The program was killed while this process was on its way.
        os._exit(70)

