"""What a manager hands out when it needs no server: proxies to objects in the shared heap.

    DictProxy  ListProxy  ArrayProxy    the native class itself: no Python frame on the way
    the others                          a native object in a Python class that speaks as the
                                        standard library's proxy does, its errors included

Each is also a subclass of the standard library's proxy class of its name, for `isinstance`. A proxy
can be pickled anywhere. Inside of what tenfold carries (arguments, queues, results, managers) it
keeps its object alive on the way; elsewhere somebody must hold a proxy meanwhile, as ever.
"""

import math
import threading
import time
import types

from . import _native
from ._original import original
from .queues import Queue as _QueueWithHook

_std = original("managers")

__all__ = [
    "AcquirerProxy",
    "ArrayProxy",
    "BarrierProxy",
    "ConditionProxy",
    "DictProxy",
    "EventProxy",
    "ListProxy",
    "NamespaceProxy",
    "QueueProxy",
    "ValueProxy",
]


class Shared:
    """A proxy to an object in the shared heap: what can be asked of any proxy, without a server."""

    _typeid = None
    # The manager that made it, in the process where it did.
    _manager = None

    @property
    def _token(self):
        return _std.Token(self._typeid, None, self._id)

    @property
    def _id(self):
        return f"{self._state()[1]:x}"

    def _callmethod(self, methodname, args=(), kwds={}):  # noqa: B006  (the standard library's signature)
        """Call a method of the object and return what it returns."""
        if methodname == "#GETVALUE":
            return self._getvalue()
        if methodname in ("__repr__", "__str__"):
            return repr(self._getvalue())
        if methodname not in self._exposed_:
            raise _std.RemoteError(
                f"AttributeError: method {methodname!r} of {self._typeid!r} object is not in "
                f"exposed={self._exposed_!r}\n"
            )
        return self._method(methodname)(*args, **kwds)

    def _method(self, name):
        return getattr(self, name)

    def __reduce__(self):
        return _found, (type(self), self._state())

    def __deepcopy__(self, memo):
        return self._getvalue()

    def __repr__(self):
        return f"<{type(self).__name__} object, typeid {self._typeid!r} at {id(self):#x}>"

    def __str__(self):
        try:
            return repr(self._getvalue())
        except Exception:
            return repr(self)[:-1] + "; '__str__()' failed>"


def _found(proxy_type, state):
    proxy = proxy_type.__new__(proxy_type)
    proxy._restore(state)
    return proxy


class DictProxy(_native.Dict, Shared, _std.DictProxy):
    """A dict that processes share. Keys are found as in a dict; keys and values are copies."""

    _typeid = "dict"

    __class_getitem__ = classmethod(types.GenericAlias)

    def __init__(self, manager, *args, **kwargs):
        self._create(manager._shared, args, kwargs)
        self._manager = manager

    def __ior__(self, other):
        self.update(other)
        return self


class ListProxy(_native.List, Shared, _std.ListProxy):
    """A list that processes share. Its items are copies."""

    _typeid = "list"

    __class_getitem__ = classmethod(types.GenericAlias)

    def __init__(self, manager, *args):
        self._create(manager._shared, *args)
        self._manager = manager


class ArrayProxy(_native.Array, Shared, _std.ArrayProxy):
    """An array of numbers that processes share. It keeps its length."""

    _typeid = "Array"

    def __init__(self, manager, typecode, sequence, lock=True):
        self._create(manager._shared, _std.Array(typecode, sequence))
        self._manager = manager


class Held(Shared):
    """A proxy that is a Python class around a native object, `_object`."""

    def __init__(self, manager, typeid, make):
        shared = manager._shared
        self._typeid = typeid
        self._manager = manager
        self._membership = shared.membership()
        self._object = make()
        # Pickling tells what is to be noted.
        _, parcel = _native.carry(self._object.__getstate__)
        shared.enrol_all(parcel)

    def _state(self):
        return self._membership.__getstate__()

    def _open(self):
        """Return the object, unless the manager was shut down."""
        self._membership.check()
        return self._object

    def __reduce__(self):
        # The membership first: it knows whether all this is of the reader's program.
        return _held, (type(self), self._membership, self._typeid, self._object, self._extra())

    def _extra(self):
        return None

    def _getvalue(self):
        # What the standard library has on the server cannot be pickled either.
        raise TypeError(f"cannot pickle {self._typeid!r} object")

    def __str__(self):
        return repr(self)


def _held(proxy_type, membership, typeid, held, extra):
    proxy = proxy_type.__new__(proxy_type)
    proxy._membership = membership
    proxy._typeid = typeid
    proxy._object = held
    if extra is not None:
        proxy._restore(extra)
    return proxy


class _Bare:
    """A native object that can be pickled where nothing carries the pickle."""

    def __getstate__(self):
        return _native.uncarried(super().__getstate__)


class _Lock(_Bare, _native.Lock):
    pass


class _RLock(_Bare, _native.RLock):
    pass


class _Semaphore(_Bare, _native.Semaphore):
    pass


class _Condition(_Bare, _native.Condition):
    pass


class _Event(_Bare, _native.Event):
    pass


class _Barrier(_Bare, _native.Barrier):
    pass


class _Queue(_Bare, _native.Queue):
    _on_queue_feeder_error = staticmethod(_QueueWithHook._on_queue_feeder_error)


def _made(native_type, *args):
    made = native_type()
    made._create(*args)
    return made


_MAKERS = {
    "Lock": lambda: _made(_Lock),
    "RLock": lambda: _made(_RLock),
    "Semaphore": lambda value=1: _made(_Semaphore, _permits(value)),
    "BoundedSemaphore": lambda value=1: _made(_Semaphore, _permits(value), value),
}


def _permits(value):
    if value < 0:
        raise ValueError("semaphore initial value must be >= 0")
    return value


# How often a wait for a lock that only its owner can free looks whether the manager was shut down.
_LOOK = 1.0


class AcquirerProxy(Held, _std.AcquirerProxy):
    """A lock or semaphore that processes share, with the errors of threading's."""

    def __init__(self, manager, typeid, *args):
        super().__init__(manager, typeid, lambda: _MAKERS[typeid](*args))

    def acquire(self, blocking=True, timeout=None):
        """Take it, waiting for at most `timeout` seconds; return whether it is held."""
        lock = self._open()
        if lock.acquire(False):
            return True
        if timeout is not None:
            if not blocking:
                raise ValueError("can't specify a timeout for a non-blocking call")
            timeout = self._checked(timeout)
        return bool(blocking) and self._wait(lock, timeout)

    def _checked(self, timeout):
        # A semaphore of threading's takes any number.
        if self._typeid in ("Lock", "RLock"):
            if timeout == -1:
                return None
            if timeout < 0:
                raise ValueError("timeout value must be a non-negative number")
            if timeout > threading.TIMEOUT_MAX:
                raise OverflowError("timeout value is too large")
        return timeout

    def _wait(self, lock, timeout):
        if self._typeid == "RLock":
            end = math.inf if timeout is None else time.monotonic() + timeout
            while not lock.acquire(True, min(_LOOK, end - time.monotonic())):
                self._membership.check()
                if time.monotonic() >= end:
                    return False
            return True
        if not lock.acquire(True, timeout):
            return False
        self._pass_on(lock)
        return True

    def _pass_on(self, lock):
        # The shutdown of a manager wakes one who waits, and each the next.
        if self._membership.closed:
            lock.release()
            self._membership.check()

    def release(self):
        """Free it, or put a permit back."""
        lock = self._open()
        try:
            lock.release()
        except (ValueError, AssertionError):
            if self._typeid == "Lock":
                raise RuntimeError("release unlocked lock") from None
            if self._typeid == "RLock":
                raise RuntimeError("cannot release un-acquired lock") from None
            raise ValueError("Semaphore released too many times") from None

    def __enter__(self):
        lock = self._open()
        if self._typeid in ("Lock", "RLock"):
            return self.acquire()
        # A permit that `with` takes goes back if this process is killed.
        taken = lock.__enter__()
        self._pass_on(lock)
        return taken

    def __exit__(self, exc_type, exc_val, exc_tb):
        if self._typeid in ("Lock", "RLock"):
            self.release()
        else:
            self._open().__exit__(exc_type, exc_val, exc_tb)


class ConditionProxy(Held, _std.ConditionProxy):
    """A condition variable that processes share, with the errors of threading's."""

    def __init__(self, manager, lock=None):
        if lock is None:
            own = _made(_RLock)
        elif isinstance(lock, AcquirerProxy):
            own = lock._open()
        else:
            own = lock
        super().__init__(manager, "Condition", lambda: _made(_Condition, own))

    def acquire(self, blocking=True, timeout=None):
        """Take the lock."""
        return self._lock().acquire(blocking, timeout)

    def release(self):
        """Free the lock."""
        self._lock().release()

    def _lock(self):
        own = self._open()._lock
        typeid = "RLock" if isinstance(own, _native.RLock) else "Lock"
        return _held(AcquirerProxy, self._membership, typeid, own, None)

    def __enter__(self):
        return self.acquire()

    def __exit__(self, exc_type, exc_val, exc_tb):
        self.release()

    def wait(self, timeout=None):
        """Let go of the lock, wait to be notified, take the lock back."""
        condition = self._open()
        try:
            notified = condition.wait(timeout)
        except AssertionError:
            raise RuntimeError("cannot wait on un-acquired lock") from None
        self._membership.check()
        return notified

    def notify(self, n=1):
        """Wake the `n` who have waited longest."""
        condition = self._open()
        try:
            condition.notify(n)
        except AssertionError:
            raise RuntimeError("cannot notify on un-acquired lock") from None

    def notify_all(self):
        """Wake all who wait."""
        self.notify(0x7FFF_FFFF)


class EventProxy(Held, _std.EventProxy):
    """A flag that processes set, clear and wait for."""

    def __init__(self, manager):
        super().__init__(manager, "Event", lambda: _made(_Event))

    def is_set(self):
        """Return whether the flag is set."""
        return self._open().is_set()

    def set(self):
        """Set the flag and wake all who wait for it."""
        self._open().set()

    def clear(self):
        """Clear the flag."""
        self._open().clear()

    def wait(self, timeout=None):
        """Wait until the flag is set; return whether it was."""
        was_set = self._open().wait(timeout)
        self._membership.check()
        return was_set


class BarrierProxy(Held, _std.BarrierProxy):
    """A place where so many parties wait for each other.

    `action` is called by the last one to come, from a copy of its own.
    """

    def __init__(self, manager, parties, action=None, timeout=None):
        self._restore((action, timeout))
        super().__init__(manager, "Barrier", lambda: _made(_Barrier, parties))

    def _extra(self):
        return self._action, self._timeout

    def _restore(self, extra):
        self._action, self._timeout = extra

    def wait(self, timeout=None):
        """Wait until all parties have come; return in which place this one came."""
        barrier = self._open()
        return barrier._wait(self._timeout if timeout is None else timeout, self._action)

    def abort(self):
        """Break the barrier."""
        self._open().abort()

    def reset(self):
        """Make the barrier as new."""
        self._open().reset()

    def _method(self, name):
        return self.__getattribute__ if name == "__getattribute__" else getattr(self, name)

    @property
    def parties(self):
        """How many parties it takes."""
        return self._open().parties

    @property
    def n_waiting(self):
        """How many wait now."""
        return self._open().n_waiting

    @property
    def broken(self):
        """Whether it is broken."""
        return self._open().broken


class QueueProxy(Held, _std.BaseProxy):
    """A queue that processes share, which also counts unfinished tasks."""

    _exposed_ = (
        "empty",
        "full",
        "get",
        "get_nowait",
        "join",
        "put",
        "put_nowait",
        "qsize",
        "task_done",
    )

    def __init__(self, manager, typeid, maxsize=0):
        super().__init__(manager, typeid, lambda: _made(_Queue, maxsize))

    def put(self, item, block=True, timeout=None):
        """Put an object at the end; queue.Full if there is no room in time."""
        self._open().put(item, block, _not_negative(block, timeout))

    def get(self, block=True, timeout=None):
        """Take the next object; queue.Empty if there is none in time."""
        queue = self._open()
        try:
            return queue.get(block, _not_negative(block, timeout))
        except ValueError:
            self._membership.check()
            raise

    def put_nowait(self, item):
        """Put an object at the end if there is room now."""
        self._open().put_nowait(item)

    def get_nowait(self):
        """Take the next object if there is one now."""
        return self._open().get_nowait()

    def qsize(self):
        """Return how many objects are in the queue."""
        return self._open().qsize()

    def empty(self):
        """Return whether there is nothing in the queue."""
        return self._open().empty()

    def full(self):
        """Return whether a put would have to wait."""
        return self._open().full()

    def task_done(self):
        """Report that one object that was taken has been dealt with."""
        self._open()._task_done()

    def join(self):
        """Wait until all objects that were put have been reported done."""
        self._open()._join()

    def __repr__(self):
        # What the standard library calls a proxy that it makes for the purpose.
        return f"<AutoProxy[{self._typeid}] object, typeid {self._typeid!r} at {id(self):#x}>"

    __str__ = __repr__


def _not_negative(block, timeout):
    if block and timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return timeout


class NamespaceProxy(_native.Namespace, Shared, _std.NamespaceProxy):
    """Names with values, as attributes. Names that begin with an underscore belong to the proxy."""

    _typeid = "Namespace"

    def __init__(self, manager, **names):
        self._create(manager._shared, names)
        self._manager = manager

    def __getattr__(self, key):
        # `__getattribute__` has failed, perhaps for another reason than that there is no such name.
        if key[0] == "_":
            return object.__getattribute__(self, key)
        return self._look_up(key)

    def __setattr__(self, key, value, _assign=_native.Namespace._assign):
        if key[0] == "_":
            object.__setattr__(self, key, value)
        else:
            _assign(self, key, value)

    def __delattr__(self, key):
        if key[0] == "_":
            object.__delattr__(self, key)
        else:
            self._remove(key)

    def _method(self, name):
        return {
            "__getattribute__": self._look_up,
            "__setattr__": self._assign,
            "__delattr__": self._remove,
        }[name]

    def _getvalue(self):
        return _std.Namespace(**self._copy())


class ValueProxy(Shared, _std.ValueProxy):
    """One value that processes share, of any type."""

    _typeid = "Value"

    def __init__(self, manager, typecode, value, lock=True):
        self._typecode = typecode
        self._cell = _native.List()
        self._cell._create(manager._shared, (value,))
        self._manager = manager

    def _state(self):
        return self._cell._state()

    def __reduce__(self):
        return _found, (type(self), (self._typecode, self._state()))

    def _restore(self, state):
        self._typecode, cell = state
        self._cell = _native.List()
        self._cell._restore(cell)

    def get(self):
        """Return the value."""
        return self._cell[0]

    def set(self, value):
        """Set the value."""
        self._cell[0] = value

    value = property(get, set)

    def _getvalue(self):
        return _std.Value(self._typecode, self.get())
