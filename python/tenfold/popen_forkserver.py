"""Starts a child by way of the fork server."""

import math
import os
import threading
import time

from . import (  # noqa: F401  (the adopted functions look them up here)
    _family,
    connection,
    forkserver,
    popen_fork,
    spawn,
)
from ._original import adopt, mirror, overlay

std = mirror(globals(), "popen_forkserver")


class _DupFd(std._DupFd):
    """A descriptor on its way to a child: its place among those that the server hands on."""

    detach = adopt(std._DupFd.detach, globals())


# Seconds after which whoever waits for a child looks whether its server is stopped.
_LOOK = 1.0
# The pids of children that are being started, by their status pipes.
_pids = {}


def _new_child(fds):
    """Have a child forked; stands in for `forkserver.connect_to_new_process` below."""
    status, data, pid = forkserver._forkserver.new_child(fds)
    _pids[status] = pid
    return status, data


class Popen(std.Popen, popen_fork.Popen):
    """A child of the fork server; descriptors in `self._fds` are passed to it."""

    DupFd = _DupFd

    # Whether the sentinel has become the child's pidfd, since the server has died.
    _is_orphan = False
    # When it was last looked whether the server is stopped.
    _looked = 0.0

    _launch = popen_fork.Popen._launch
    _standard_start = adopt(
        std.Popen._launch,
        {
            **globals(),
            "forkserver": overlay(
                forkserver, connect_to_new_process=_new_child, read_signed=_pids.pop
            ),
        },
    )

    def _start(self, process_obj):
        self._reading = threading.Lock()
        # As in popen_spawn_posix.
        self._parcel = _family.carry(lambda: self._standard_start(process_obj))
        _family.watch_again()

    def poll(self, flag=os.WNOHANG):
        """Return the exit code, or None while the child runs; `flag` 0 waits for it."""
        return self.wait(0 if flag == os.WNOHANG else None)

    def wait(self, timeout=None):
        """Return the exit code, or None if the child still runs after so many seconds."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = max(0, end - time.monotonic())
            if connection.wait([self.sentinel], min(left, _LOOK)):
                self._read_code()
            elif left <= _LOOK:
                self._look_past_server()
                break
            else:
                self._look_past_server()
        return self.returncode

    def _read_code(self):
        # The server tells it once. Each start in any thread looks after all children.
        with self._reading:
            if self.returncode is None:
                self._read_code_alone()

    def _read_code_alone(self):
        try:
            self.returncode = forkserver.read_signed(self.sentinel)
        except (OSError, EOFError):
            if self._is_orphan or not self._watch_orphan():
                # Nobody has reaped it for us; the family may know how it ended.
                code = self._record.exit_code(timeout=1)
                self.returncode = 255 if code is None else code

    def _look_past_server(self):
        """A server that is stopped tells of no end, but the kernel does."""
        now = time.monotonic()
        if now < self._looked + _LOOK:
            return
        self._looked = now
        if forkserver.is_stopped(forkserver._forkserver._forkserver_pid):
            status = forkserver.status_of_zombie(self.pid)
            if status is not None:
                self.returncode = os.waitstatus_to_exitcode(status)

    def _watch_orphan(self):
        """The server was killed: have the sentinel tell the child's own end; false if it has."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if self._record.exit_code(timeout=0) is not None:
                return False
            os.dup2(pidfd, self.sentinel, inheritable=False)
        finally:
            os.close(pidfd)
        self._is_orphan = True
        return True
