"""Ctrl-C reaches all processes of a program at once, and one traceback is enough.

    plain children     have their own, as the standard library's do
    a pool's workers   start deaf, hear it in tasks and initializers, and end deaf (`_worker`)
    fork server        is deaf; its children are until they know what they are
    warden             is deaf
"""

import _signal
import threading

__all__ = ["deaf", "hear", "later"]

# Whether this process is a fork server, or its child that has not been told yet what it is.
held_back = False


class deaf:
    """What inherits this thread's mask does not hear of Ctrl-C; gives the mask without that."""

    def __enter__(self):
        self._before = _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGINT})
        return self._before

    def __exit__(self, *_):
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._before)


def hear(worker):
    """Hear Ctrl-C, in a child of the fork server; a pool's worker does so by itself."""
    global held_back
    if held_back:
        held_back = False
        if not worker:
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGINT})


class later:
    """Put off Ctrl-C: what is started piece by piece must not be left half done."""

    def __enter__(self):
        self._handler = _signal.getsignal(_signal.SIGINT)
        self._arrived = []
        is_main = threading.current_thread() is threading.main_thread()
        self._puts_off = is_main and callable(self._handler)
        if self._puts_off:
            _signal.signal(_signal.SIGINT, lambda *arguments: self._arrived.append(arguments))

    def __exit__(self, *_):
        if self._puts_off:
            _signal.signal(_signal.SIGINT, self._handler)
        if self._arrived:
            self._handler(*self._arrived[0])
