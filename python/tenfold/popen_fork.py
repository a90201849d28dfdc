"""Starts a child that is a copy of this process, and looks after any child."""

import os
import types

from . import _family
from ._original import adopt, mirror

std = mirror(globals(), "popen_fork")


class Popen(std.Popen):
    """A started child, and how it is started: what all start methods have in common."""

    def _launch(self, process_obj):
        _family.before_start()
        process_obj._record = self._record = _family.new_record()
        self._start(process_obj)

    def _start(self, process_obj):
        """Make the child, which goes on in `process_obj._bootstrap` and never returns from here."""
        ends = []

        def pipe():
            ends.extend(closing(os.pipe))
            return ends[-2:]

        def closing(make):
            # The standard library leaves its pipes open if there is no room for a child.
            try:
                return make()
            except BaseException:
                for end in ends:
                    os.close(end)
                raise

        def fork():
            try:
                return os.fork()
            except OSError:
                _family.not_forked()
                raise

        replaced = {**vars(os), "pipe": pipe, "fork": lambda: closing(fork)}
        launch = adopt(
            std.Popen._launch,
            {**vars(std), "__name__": __name__, "os": types.SimpleNamespace(**replaced)},
        )
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
