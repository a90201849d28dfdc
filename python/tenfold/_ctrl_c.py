"""Ctrl-C reaches all processes of a program at once, and one traceback is enough.

    plain children     have their own, as the standard library's do
    a pool's workers   start deaf, hear it in tasks and initializers, and end deaf (`_worker`)
    fork server        is deaf; its children are until they know what they are
    warden             is deaf
"""

import contextlib
import signal
import threading

__all__ = ["deaf", "hear", "later"]

# Whether this process is a fork server, or its child that has not been told yet what it is.
held_back = False


@contextlib.contextmanager
def deaf():
    """What inherits this thread's mask does not hear of Ctrl-C; gives the mask without that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear(worker):
    """Hear Ctrl-C, in a child of the fork server; a pool's worker does so by itself."""
    global held_back
    if held_back:
        held_back = False
        if not worker:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextlib.contextmanager
def later():
    """Put off Ctrl-C: what is started piece by piece must not be left half done."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    arrived = []
    signal.signal(signal.SIGINT, lambda *arguments: arrived.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if arrived:
            handler(*arrived[0])
