"""Starts a child by way of the fork server."""

from . import (  # noqa: F401  (the adopted functions look them up here)
    _family,
    forkserver,
    popen_fork,
    spawn,
)
from ._original import adopt, mirror

std = mirror(globals(), "popen_forkserver")


class _DupFd(std._DupFd):
    """A descriptor on its way to a child: its place among those that the server hands on."""

    detach = adopt(std._DupFd.detach, globals())


class Popen(std.Popen, popen_fork.Popen):
    """A child of the fork server; descriptors in `self._fds` are passed to it."""

    DupFd = _DupFd

    _launch = popen_fork.Popen._launch
    _standard_start = adopt(std.Popen._launch, globals())

    def _start(self, process_obj):
        # As in popen_spawn_posix.
        self._parcel = _family.carry(lambda: self._standard_start(process_obj))

    poll = adopt(std.Popen.poll, globals())
