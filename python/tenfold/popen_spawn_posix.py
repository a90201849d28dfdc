"""Starts a child with a fresh interpreter."""

from . import _family, popen_fork, spawn, util  # noqa: F401  (the adopted function looks here)
from ._original import adopt, mirror, overlay

std = mirror(globals(), "popen_spawn_posix")


class Popen(std.Popen, popen_fork.Popen):
    """A child with a fresh interpreter; descriptors in `self._fds` are passed to it."""

    _launch = popen_fork.Popen._launch
    poll = popen_fork.Popen.poll

    _standard_start = adopt(
        std.Popen._launch,
        {**globals(), "util": overlay(util, spawnv_passfds=_family.execute)},
    )

    def _start(self, process_obj):
        self._fds.append(_family.invitation()[1])
        # The child takes what it is given while this process holds it: until it is joined.
        self._parcel = _family.carry(lambda: self._standard_start(process_obj))
        _family.watch_again()
