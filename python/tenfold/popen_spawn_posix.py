"""Starts a child with a fresh interpreter."""

from . import popen_fork, spawn  # noqa: F401  (the adopted function looks spawn up here)
from ._original import adopt, mirror

std = mirror(globals(), "popen_spawn_posix")


class Popen(std.Popen, popen_fork.Popen):
    """A child with a fresh interpreter; descriptors in `self._fds` are passed to it."""

    _launch = popen_fork.Popen._launch
    _start = adopt(std.Popen._launch, globals())
