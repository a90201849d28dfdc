"""ctypes objects in shared memory, with a lock (Value, Array) or without (RawValue, RawArray).

The memory is a block of the shared heap, which goes back when the last process lets go of it. The
objects can be sent anywhere: as arguments, through queues, in a manager's dict.
"""

import ctypes
import weakref

from . import _native, get_context  # noqa: F401  (the adopted functions look get_context up here)
from ._original import adopt, mirror

std = mirror(globals(), "sharedctypes")

# Types whose numbers `Synchronized` and `SynchronizedArray` read and write natively.
_numbers = {
    type_: type_._type_
    for type_ in (*std.typecode_to_type.values(), ctypes.c_bool)
    if type_ not in (ctypes.c_char, ctypes.c_wchar)
}


class Memory(_native.Memory):
    """Bytes that processes share."""

    __slots__ = ()

    def __init__(self, size):
        self._create(size)

    def create_memoryview(self):
        """Return a memoryview of the bytes, which keeps them in place."""
        return memoryview(self._view())


def _new_value(type_):
    return rebuild_ctype(type_, Memory(ctypes.sizeof(type_)), None)


def RawValue(typecode_or_type, *args):
    """Return a ctypes object in shared memory."""
    obj = _new_value(std.typecode_to_type.get(typecode_or_type, typecode_or_type))
    obj.__init__(*args)
    return obj


def RawArray(typecode_or_type, size_or_initializer):
    """Return a ctypes array in shared memory."""
    type_ = std.typecode_to_type.get(typecode_or_type, typecode_or_type)
    if isinstance(size_or_initializer, int):
        return _new_value(type_ * size_or_initializer)
    array = _new_value(type_ * len(size_or_initializer))
    array.__init__(*size_or_initializer)
    return array


def reduce_ctype(obj):
    """Pickle a ctypes object: its memory, if that is shared, and otherwise its content."""
    memory = getattr(obj, "_wrapper", None)
    if memory is None:
        return obj.__reduce_ex__(5)
    if isinstance(obj, ctypes.Array):
        return rebuild_ctype, (obj._type_, memory, obj._length_)
    return rebuild_ctype, (type(obj), memory, None)


# The standard library's code, with the functions and classes of this module, and with locks of
# tenfold's contexts.
Value = adopt(std.Value, globals())
Array = adopt(std.Array, globals())
copy = adopt(std.copy, globals())
synchronized = adopt(std.synchronized, globals())
rebuild_ctype = adopt(std.rebuild_ctype, globals())
class_cache = weakref.WeakKeyDictionary()


class SynchronizedBase(_native.Synchronized, std.SynchronizedBase):
    """A shared object and the lock that guards it."""

    def __reduce__(self):
        return synchronized, (self._obj, self._lock)


class Synchronized(_native.SynchronizedValue, SynchronizedBase, std.Synchronized):
    """A shared number, as `value`."""


class SynchronizedArray(_native.SynchronizedArray, SynchronizedBase, std.SynchronizedArray):
    """A shared array of fixed length."""


class SynchronizedString(SynchronizedArray, std.SynchronizedString):
    """A shared array of bytes, as `value` and `raw`."""


def _numbers_of(wrapper):
    """What the native half needs to read and write the numbers itself; None if it cannot."""
    obj, lock = wrapper._obj, wrapper._lock
    memory = getattr(obj, "_wrapper", None)
    type_ = type(obj)
    if type(wrapper) is SynchronizedArray:
        type_ = type_._type_
    elif type(wrapper) is not Synchronized:
        # A subclass may have a lock, or a look, of its own.
        return None
    native = next((c for c in (_native.RLock, _native.Lock) if isinstance(lock, c)), None)
    if native is None or type_ not in _numbers or not isinstance(memory, Memory):
        return None
    if any(getattr(type(lock), name) is not getattr(native, name) for name in _lock_methods):
        return None
    # An object of which the memory is only a part, or that was moved, is ctypes' own affair.
    if ctypes.sizeof(obj) != len(memory) or not ctypes.sizeof(obj):
        return None
    return memory, _numbers[type_], ctypes.sizeof(type_), lock


_lock_methods = ("acquire", "release", "__enter__", "__exit__")
