"""The workers of a pool, and the thread that looks after them.

    start: fill ─▶ worker, worker, …           thread: asleep until a worker ends or the bell rings
    a worker ends ─▶ reap it, tell the engine ─▶ fill up, while there is work or more may come
    close ─▶ when nothing more is fed: the workers end once they have done what there is
    terminate ─▶ all are killed

If workers die again and again before they are ready, and none is ready, the pool is broken. As long
as one is, the pool goes on with it, and the others are tried one at a time, at longer and longer
intervals.
"""

import contextlib
import os
import threading
import time

from . import _ctrl_c
from ._attendant import Attendant
from ._original import original

__all__ = ["Crew"]

# So many deaths in a row before any worker was ready make a pool broken.
_FAILURES_MAX = 3
# Seconds before the next worker is tried, where one is ready: at first, and at most.
_PAUSE_MIN, _PAUSE_MAX = 0.1, 10.0
# Seconds that a worker has between SIGTERM and SIGKILL.
_GRACE = 2.0
# Seconds that feeding threads have to notice the end.
_FEEDERS_GRACE = 0.2


class Crew:
    """A pool's workers."""

    def __init__(self, board, herald, workers, size, make, method):
        self._board = board
        self._herald = herald
        self._workers = workers
        self._size = size
        self._make = make
        self._method = method
        self._lock = threading.RLock()
        # A fork server that is stopped tells nobody of a worker's end.
        self._slice = 1.0 if method == "forkserver" else None
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._feeders = {}
        self._closing = False
        self._terminated = False
        self._dead = 0
        # Deaths before the worker was ready: all, and how many there were when one became ready
        # last, and when one was seen to be ready last.
        self._failed = self._forgiven = self._borne = 0
        self._seen_ready = 0
        self._due = 0.0
        self._last_code = None
        self._owner = os.getpid()
        self._thread = Attendant("tenfold-crew", self._run)

    def __del__(self):
        os.close(self._bell)

    def start(self):
        """Start the workers, or none: if one cannot be started, its error is raised."""
        try:
            self.fill()
            self._thread.start()
        except BaseException:
            self._terminated = True
            self._board.terminate()
            self._ring()
            for worker in self._workers:
                if worker.exitcode is None:
                    worker.terminate()
            for worker in self._workers:
                worker.join()
            self._thread.await_end()
            raise

    def fill(self, most=None):
        """Start workers until there are enough, or so many more."""
        with self._lock:
            size = self._size if most is None else min(self._size, len(self._workers) + most)
            while len(self._workers) < size and not self._terminated:
                worker = self._make()
                if self._method == "spawn":
                    from . import resource_tracker

                    # Its start, within that of a worker, would let Ctrl-C in again.
                    resource_tracker.ensure_running()
                with contextlib.ExitStack() as around:
                    if self._method != "fork":
                        around.enter_context(_ctrl_c.later())
                    if self._method != "forkserver":
                        around.enter_context(_ctrl_c.deaf())
                    worker.start()
                    self._workers.append(worker)

    def feed(self, stream, iterator, group):
        """Feed a stream from an iterator, in a thread of its own."""
        thread = Attendant("tenfold-feeder", self._feed, stream, iterator, group)
        with self._lock:
            self._feeders[thread] = stream
        thread.start()

    def _feed(self, stream, iterator, group):
        error = None
        try:
            stream._feed(iterator, group, True)
        except BaseException as raised:
            error = raised
        stream._complete(error)
        with self._lock:
            self._feeders.pop(threading.current_thread(), None)
        self._ring()

    def close(self):
        """Let the workers end when there is nothing more to do."""
        with self._lock:
            self._closing = True
            if not self._feeders:
                self._board.close()
        self._ring()

    def join(self):
        """Wait until the workers of a pool that is closed or terminated have ended."""
        self._thread.await_end()
        self._herald.join()
        for worker in list(self._workers):
            worker.join()

    def terminate(self):
        """End the workers now. In a child of fork, whose parent the pool belongs to, do nothing."""
        if os.getpid() != self._owner:
            return
        self._terminated = True
        self._board.terminate()
        with self._lock:
            workers = list(self._workers)
            feeders = dict(self._feeders)
        self._herald.end()
        for stream in feeders.values():
            stream._wake()
        self._ring()
        for worker in workers:
            if worker.exitcode is None:
                worker.terminate()
        deadline = time.monotonic() + _GRACE
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.exitcode is None:
                worker.kill()
                worker.join()
        self._thread.await_end()
        self._herald.join()
        # One that its iterator keeps waiting is left behind.
        deadline = time.monotonic() + _FEEDERS_GRACE
        for thread in feeders:
            thread.await_end(max(0.0, deadline - time.monotonic()))

    def _ring(self):
        os.eventfd_write(self._bell, 1)

    def _run(self):
        wait = original("connection").wait
        try:
            while self._tend():
                ends = [worker.sentinel for worker in list(self._workers)]
                wait([*ends, self._bell], self._rest())
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._bell)
        except BaseException as error:
            # Nobody looks after the workers any more.
            self._board.declare_broken(error)
            raise
        finally:
            self._herald.end()

    def _tend(self):
        """Do what is to be done; returns whether there will be more."""
        with self._lock:
            self._bury_dead()
            if self._terminated:
                return bool(self._workers)
            if self._closing and not self._feeders:
                self._board.close()
            state = self._board.state
            if state == "open" or (state == "closed" and self._board.has_work()):
                self._replace()
            return bool(self._workers) or not self._closing

    def _bury_dead(self):
        for worker in list(self._workers):
            if worker.exitcode is not None:
                self._last_code = worker.exitcode
                worker.join()
                self._workers.remove(worker)
                self._dead += 1

    def _rest(self):
        """Return after how many seconds to look again, though nothing happens."""
        left = self._due - time.monotonic()
        if left <= 0:
            return self._slice
        return left if self._slice is None else min(left, self._slice)

    def _replace(self):
        working = self._note_failures()
        if len(self._workers) >= self._size:
            return
        failures = self._failed - max(self._forgiven, self._borne)
        if failures >= _FAILURES_MAX:
            self._give_up(
                f"{failures} workers in a row ended before they were ready for work, the last with "
                f"exit code {self._last_code}; look at the initializer, at what the main module "
                "does when it is imported, and at standard error"
            )
            return
        most = None
        if working and self._pause():
            if time.monotonic() < self._due:
                return
            # Nobody rings when a worker becomes ready: look by then.
            self._due = time.monotonic() + self._pause()
            most = 0 if len(self._workers) > working else 1
        try:
            self.fill(most)
        except Exception as error:
            # The others go on, and the next event tries again, or the next look.
            self._due = time.monotonic() + _PAUSE_MIN
            if not self._workers:
                self._give_up(f"no process can be started: {error!r}")

    def _note_failures(self):
        """See how many workers have died before they were ready, and when to try the next.

        Returns how many are ready and alive.
        """
        ready, present = self._board.ready_workers(), self._board.present_workers()
        before, self._failed = self._failed, self._dead - (ready - present)
        if ready != self._seen_ready:
            self._seen_ready, self._forgiven, self._due = ready, self._failed, 0.0
        if present:
            self._borne = self._failed
        if self._failed > before and self._pause():
            self._due = time.monotonic() + self._pause()
        return present

    def _pause(self):
        """Return the seconds between two starts, or 0 if not so many have failed in a row."""
        more = self._failed - self._forgiven - _FAILURES_MAX
        return 0.0 if more < 0 else min(_PAUSE_MIN * 2 ** min(more, 16), _PAUSE_MAX)

    def _give_up(self, text):
        self._board.declare_broken(RuntimeError(text))
