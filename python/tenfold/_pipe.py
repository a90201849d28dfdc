"""Pipes whose ends move messages natively.

The bytes are the standard library's: either end may be one of its connections. Its `connection`
module stays as it is, since other packages register reducers for its very class.
"""

from . import _native, connection, context, reduction
from ._original import adopt_seeing

__all__ = ["Connection", "Pipe"]


class Connection(_native.Connection, connection.Connection):
    """One end of a pipe."""

    __doc__ = connection.Connection.__doc__

    def __reduce__(self):
        if context.get_spawning_popen() is None:
            from . import _sharer

            _sharer.use()
        descriptor = reduction.DupFd(self.fileno())
        return _rebuild, (descriptor, self.readable, self.writable)


def _rebuild(descriptor, readable, writable):
    return Connection(descriptor.detach(), readable, writable)


Pipe = adopt_seeing(connection.Pipe, connection, __name__, Connection=Connection)
