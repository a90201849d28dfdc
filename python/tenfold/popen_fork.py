"""Starts a child that is a copy of this process, and looks after any child."""

import os
import threading

from . import _family
from ._original import adopt_seeing, mirror, overlay

std = mirror(globals(), "popen_fork")


class _Start(threading.local):
    """The start that a thread is at: the pipes that nobody else closes if there is no child."""

    ends = ()


_current = _Start()


def _pipe():
    """Make a pipe; stands in for `os.pipe` below."""
    ends = os.pipe()
    _current.ends += ends
    return ends


def after_fork():
    """What the standard library does in the child, in fewer functions: each costs it pages."""
    registry = std.util._afterfork_registry
    std.util._finalizer_registry.clear()
    if len(registry):
        std.util._run_after_forkers()


class Popen(std.Popen):
    """A started child, and how it is started: what all start methods have in common."""

    def _launch(self, process_obj):
        _family.before_start()
        process_obj._record = self._record = _family.new_record()
        self._start(process_obj)

    # What the child calls is not looked for in `os`: each look costs it pages.
    _fork_and_go_on = adopt_seeing(
        std.Popen._launch,
        std,
        __name__,
        os=overlay(os, pipe=_pipe, fork=os.fork, close=os.close, _exit=os._exit),
    )

    def _start(self, process_obj):
        """Make the child, which goes on in `process_obj._bootstrap` and never returns from here."""
        _current.ends = ()
        try:
            self._fork_and_go_on(process_obj)
        except BaseException as error:
            # Once there is a child, the standard library closes what it has opened.
            if not hasattr(self, "pid"):
                # With both pipes there, it was the fork that the system refused.
                if isinstance(error, OSError) and len(_current.ends) == 4:
                    _family.not_forked()
                for end in _current.ends:
                    os.close(end)
            raise
        if not _family.forked(self.pid):
            _family.watch_again()

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
            code = self._record.exit_code(timeout=1)
            # If it was another thread, that knows better.
            if self.returncode is None:
                self.returncode = 255 if code is None else code
        return self.returncode
