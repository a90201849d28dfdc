"""ctypes objects in shared memory, with a lock (Value, Array) or without (RawValue, RawArray)."""

from . import get_context  # noqa: F401  (the adopted functions look it up here)
from ._original import adopt, mirror

std = mirror(globals(), "sharedctypes")


class SynchronizedBase(std.SynchronizedBase):
    """A shared object and the lock that guards it."""

    def __reduce__(self):
        _, arguments = super().__reduce__()
        return synchronized, arguments


class Synchronized(SynchronizedBase, std.Synchronized):
    """A shared number, as `value`."""


class SynchronizedArray(SynchronizedBase, std.SynchronizedArray):
    """A shared array of fixed length."""


class SynchronizedString(SynchronizedArray, std.SynchronizedString):
    """A shared array of bytes, as `value` and `raw`."""


# The standard library's code, with the classes above and with locks of tenfold's contexts.
Value = adopt(std.Value, globals())
Array = adopt(std.Array, globals())
synchronized = adopt(std.synchronized, globals())
