"""The thread of a pool that runs callbacks and wakes what waits in asyncio.

It exists once there is something for it to do, and sleeps at the watcher's bell of the board.
"""

import collections
import contextlib
import sys
import threading

from ._attendant import Attendant

__all__ = ["Arrival", "Herald", "arrival", "report"]


class Herald:
    """Tells of results: of each that was added, `_announce` is called once it `_is_final`."""

    def __init__(self, board):
        self._board = board
        self._added = collections.deque()
        self._pending = collections.deque()
        self._thread = None
        self._lock = threading.Lock()
        self._ending = False

    def add(self, result):
        """Have a result announced."""
        self._added.append(result)
        with self._lock:
            if self._thread is None:
                self._board.attend(True)
                self._thread = Attendant("tenfold-herald", self._run)
                self._thread.start()
        self._board.ring()

    def end(self):
        """Nothing will change any more: announce what is left, then end."""
        self._ending = True
        self._board.ring()

    def join(self):
        """Wait for the end."""
        thread = self._thread
        if thread is not None:
            thread.await_end()

    def _run(self):
        while True:
            seen = self._board.rings()
            ending = self._ending
            while self._added:
                self._pending.append(self._added.popleft())
            # Tasks are run in the order of the calls, so what is done stands in front. All are
            # looked at before a sleep.
            if self._announce_final(64) or self._announce_final(len(self._pending)):
                continue
            if ending and not self._added:
                break
            if not self._board.watch(seen):
                self._ending = True
        for result in self._pending:
            result._abandon()
        self._pending.clear()
        with self._lock:
            self._board.attend(False)
            self._thread = None
        # Added at the last moment.
        while self._added:
            self._added.popleft()._abandon()

    def _announce_final(self, patience):
        """Announce what is done, until so many are found that are not; was there any?"""
        kept, found = [], False
        while self._pending and len(kept) < patience:
            result = self._pending.popleft()
            if result._is_final():
                found = True
                try:
                    result._announce()
                except BaseException:
                    report()
            else:
                kept.append(result)
            del result
        self._pending.extendleft(reversed(kept))
        return found


class Arrival:
    """One wait for the next result of a stream."""

    def __init__(self, stream, wake):
        self._is_final = stream._is_final
        self._announce = self._abandon = wake


async def arrival(register):
    """Wait, in asyncio, until a thread calls the function that `register` is given."""
    import asyncio

    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def settle():
        if not future.done():
            future.set_result(None)

    def wake():
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle)

    register(wake)
    await future


def report():
    """Print the exception that is being handled as that of a thread, which goes on."""
    arguments = (*sys.exc_info(), threading.current_thread())
    threading.excepthook(threading.ExceptHookArgs(arguments))
