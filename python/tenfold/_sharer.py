"""Where a process hands out the descriptors that it sends: the standard library's resource sharer.

Its socket has a name in no folder here, so that no folder stays behind when the process is killed.
"""

import threading

from . import _abstract, process, util
from ._original import original

__all__ = ["ResourceSharer", "use"]

std = original("resource_sharer")


class _Listener(_abstract.Listener):
    """A socket that other users find busy."""

    def accept(self):
        while True:
            try:
                return super().accept()
            except ConnectionAbortedError:
                util.debug("another user was turned away")


class ResourceSharer(std._ResourceSharer):
    """As the standard library's, but for its address."""

    def _start(self):
        from .connection import Listener

        key = process.current_process().authkey
        self._listener = Listener(_abstract.new_address(), authkey=key)
        self._address = self._listener.address
        listener = self._listener._listener
        listener._socket = _Listener(fileno=listener._socket.detach())
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()


def use():
    """Have the resource sharer of this process, the only one, begin in this way.

    Called before tenfold pickles what may have a descriptor; until then multiprocessing, whose
    sharer it is too, is left alone.
    """
    std._resource_sharer.__class__ = ResourceSharer
