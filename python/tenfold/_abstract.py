"""Sockets with a name in no folder: nothing stays behind when their process is killed.

Linux keeps such names in a space of their own, where no permissions guard them. So a listener
lets in processes of its own user only.
"""

import errno
import os
import socket
import struct

__all__ = ["Listener", "new_address"]


def new_address(family: str = "AF_UNIX") -> str:
    """Return a new name; may stand in for `connection.arbitrary_address`."""
    return f"\0tenfold-{os.urandom(16).hex()}"


class Listener(socket.socket):
    """A socket that turns other users away before anything is read."""

    def accept(self) -> tuple[socket.socket, object]:
        conn, address = super().accept()
        peer = conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", peer)[1] != os.geteuid():
            conn.close()
            # The standard library's servers take this as a client that has gone away.
            raise ConnectionAbortedError(errno.ECONNABORTED, "not a process of this user")
        return conn, address
