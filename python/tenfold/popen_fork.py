"""Starts a child that is a copy of this process, and looks after any child.

    parent                       child
    _before_start
    _start ────────────────────▶ _begin, process._bootstrap, _end
    _after_start
    poll ── _look ◀───────────── exit
    _after_end

The other start methods have their own `_start` and `_look`; where their children begin and end is
in `spawn`.
"""

import os

from ._original import mirror

std = mirror(globals(), "popen_fork")


class Popen(std.Popen):
    """A child, from its start to its end: what all start methods have in common."""

    def _launch(self, process_obj):
        self._before_start(process_obj)
        self._start(process_obj)
        self._after_start(process_obj)

    def _before_start(self, process_obj):
        """Runs in the parent while there is no child yet."""

    def _start(self, process_obj):
        """Make the child; it never returns from here."""
        std.Popen._launch(self, _Forked(process_obj))

    def _after_start(self, process_obj):
        """Runs in the parent once the child is there, as `self.pid`."""

    def poll(self, flag=os.WNOHANG):
        if self.returncode is None and self._look(flag) is not None:
            self._after_end()
        return self.returncode

    # Sets `self.returncode` if the child has ended; with flag 0 it waits for that.
    _look = std.Popen.poll

    def _after_end(self):
        """Runs in the parent when it has learnt how the child ended."""


class _Forked:
    """A process object in the child of a fork."""

    def __init__(self, process_obj):
        self._process_obj = process_obj

    def _bootstrap(self, parent_sentinel):
        self._begin()
        exitcode = self._process_obj._bootstrap(parent_sentinel=parent_sentinel)
        self._end(exitcode)
        return exitcode

    def _begin(self):
        """Runs in the child before everything else."""

    def _end(self, exitcode):
        """Runs in the child after everything else; what follows is `os._exit`."""
