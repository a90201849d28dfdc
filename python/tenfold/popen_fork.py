"""Starts a child that is a copy of this process, and looks after any child."""

import contextlib
import os

from . import _family
from ._original import adopt_seeing, mirror, overlay

std = mirror(globals(), "popen_fork")


class Popen(std.Popen):
    """A started child, and how it is started: what all start methods have in common."""

    def _launch(self, process_obj):
        _family.before_start()
        process_obj._record = self._record = _family.new_record()
        self._start(process_obj)

    def _start(self, process_obj):
        """Make the child, which goes on in `process_obj._bootstrap` and never returns from here."""
        # The standard library leaves its pipes open if there is no room for a child.
        with contextlib.ExitStack() as opened:

            def pipe():
                ends = os.pipe()
                for end in ends:
                    opened.callback(os.close, end)
                return ends

            def fork():
                try:
                    pid = os.fork()
                except OSError:
                    _family.not_forked()
                    raise
                # From here on the code that forked closes what it has opened.
                opened.pop_all()
                return pid

            replaced = overlay(os, pipe=pipe, fork=fork)
            launch = adopt_seeing(std.Popen._launch, std, __name__, os=replaced)
            launch(self, process_obj)
        _family.forked(self.pid)

    def poll(self, flag=os.WNOHANG):
        """Return the exit code, or None while the child runs; `flag` 0 waits for it."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, flag)
            except OSError:
                return self._reaped_by_another()
            if pid == self.pid:
                self.returncode = os.waitstatus_to_exitcode(status)
                _family.reaped(pid, status)
        return self.returncode

    def _reaped_by_another(self):
        """The program calls os.wait() itself or ignores SIGCHLD; the family knows how it ended."""
        from .connection import wait

        if wait([self.sentinel], 0):
            self.returncode = self._record.exit_code(timeout=1)
            if self.returncode is None:
                self.returncode = 255
        return self.returncode
