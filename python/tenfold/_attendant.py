"""Threads that look after something, and whose end can be waited for."""

import threading

__all__ = ["Attendant"]


class Attendant(threading.Thread):
    """A daemon thread whose end can be waited for, and again after Ctrl-C has cut the wait short.

    `Thread.join` takes a thread for ended when it is interrupted, up to Python 3.12.
    """

    def __init__(self, name, target, *args):
        super().__init__(target=target, args=args, name=name, daemon=True)
        self._over = threading.Event()
        self._begun = False

    def start(self):
        """Start the thread."""
        self._begun = True
        try:
            super().start()
        except RuntimeError:
            # There is no such thread.
            self._begun = False
            raise

    def run(self):
        """Run in the thread."""
        try:
            super().run()
        finally:
            self._over.set()

    def await_end(self, timeout=None):
        """Wait until the thread has ended, unless it is this one or was never started."""
        if self._begun and threading.current_thread() is not self:
            self._over.wait(timeout)
