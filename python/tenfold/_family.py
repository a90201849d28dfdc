"""Which processes belong to the program: what tenfold does around the start and the end of each.

    parent                                        child
    before_start: there is a heap and a warden
    fork, forked(pid) ──────────────────────────▶ settle(daemon, record)
    exec, with the heap's descriptor ───────────▶ arrive(invitation), later settle(daemon, record)
    reaped(pid, status) ◀───────────────────────  leave(code), exit
"""

import contextlib
import os
import sys

from . import _native

__all__ = [
    "arrive",
    "before_start",
    "carry",
    "execute",
    "forked",
    "invitation",
    "leave",
    "new_record",
    "not_forked",
    "reaped",
    "settle",
    "watch_again",
]

forked = _native.forked
not_forked = _native.not_forked
reaped = _native.reaped
leave = _native.leave
# A blank record for a child, which puts itself on it.
new_record = _native.new_record
# Join the family, in a child that was exec'd or that the fork server made.
arrive = _native.join
# Take up this process's place in the family, in a child, before it runs the program's code.
settle = _native.settle

# The module `spawn`, once a process is started: to import it each time costs the child pages.
_spawn = None
# A bare interpreter: it loads one extension module, and never runs Python code again. Where that
# module can be preloaded, this program is not even begun.
_WARDEN = """\
import _imp, sys
from importlib.machinery import ModuleSpec
spec = ModuleSpec("tenfold._native", None, origin=sys.argv[1])
native = _imp.create_dynamic(spec)
_imp.exec_dynamic(native)
native.run_warden(sys.argv[2])
"""


def _start_warden(invitation, fd):
    from . import _ctrl_c, spawn

    command = [spawn.get_executable(), "-I", "-S", "-c", _WARDEN, _native.__file__, invitation]
    environment = _warden_environment(invitation)
    with _ctrl_c.deaf():
        if environment is None:
            return execute(command[0], command, [fd])
        # The warden itself closes all descriptors but this one.
        keep = [(os.POSIX_SPAWN_DUP2, fd, fd)]
        return os.posix_spawn(command[0], command, environment, file_actions=keep)


def _warden_environment(invitation):
    """Return the environment of an interpreter that has our module preloaded, and becomes the
    warden thereby; None where the loader may not find in it what the module needs."""
    from . import spawn

    library = _native.__file__
    try:
        same = os.path.samefile(spawn.get_executable(), "/proc/self/exe")
    except OSError:
        return None
    # These separate names in the loader's list, or mean something in them.
    if not same or any(character in library for character in " :$"):
        return None
    others = os.environ.get("LD_PRELOAD")
    variable, value = _native.warden_variable(invitation)
    preload = f"{library}:{others}" if others else library
    return {**os.environ, "LD_PRELOAD": preload, variable: value}


def execute(path, arguments, descriptors):
    """Start a process; stands in for `util.spawnv_passfds` where the standard library starts one.

    Where there is no room for another, it tries a plain fork at last, and a plain fork takes a
    place in the family for the child.
    """
    from . import util

    try:
        return util.spawnv_passfds(path, arguments, descriptors)
    except OSError:
        not_forked()
        raise


def before_start():
    """See to it that somebody ends what is about to be started, if this program is killed."""
    global _spawn
    if _spawn is None:
        from . import spawn as _spawn
    if _spawn.get_executable() and not getattr(sys, "frozen", False):
        _native.ensure_warden(_start_warden)


def watch_again():
    """As `before_start`, once the child is there: the warden may have been killed meanwhile."""
    # Where there is no room for another now, the next start tries again.
    with contextlib.suppress(Exception):
        before_start()


def invitation():
    """Return what an exec'd child needs to join: a text, and a descriptor to inherit."""
    return _native.invite()


def carry(function):
    """Call `function`, which may pickle shared objects; they live as long as what is returned."""
    return _native.carry(function)[1]
