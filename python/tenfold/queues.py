"""Queues between processes: in shared memory, without a feeder thread.

An object is in the queue when `put` returns, and what cannot be pickled is an error of that `put`.
The standard library's classes are bases for `isinstance`, for the methods that need no change, and
for subclasses that are about their inside.
"""

import functools
import threading
import types

from . import _native
from ._original import mirror

std = mirror(globals(), "queues")


class _Computed:
    """An attribute that is computed whenever it is looked at, unless it has been assigned."""

    def __init__(self, function):
        self._function = function

    def __get__(self, instance, owner=None):
        return self if instance is None else self._function(instance)


class _Common:
    """What all queues have.

    The ends are pipes in the standard library. concurrent.futures waits on `_reader` with
    `connection.wait` and then calls `recv`; asyncio and select ask it for a descriptor; the
    standard library's Pool sends through `_writer`.
    """

    _reader = functools.cached_property(lambda self: self._make_reader())
    _writer = functools.cached_property(lambda self: self._make_writer())

    __class_getitem__ = classmethod(types.GenericAlias)


def _use_pipe(cls, *names):
    """Let a subclass that is about the inside of the standard library's queue have it whole."""
    if cls.__base__._has_pipe:
        # The class that it is derived from has it already, and perhaps its own way with it.
        return
    cls._has_pipe = True
    for name in names:
        # What is native; not what the subclass itself has.
        if isinstance(getattr(cls, name), types.MethodDescriptorType):
            setattr(cls, name, getattr(super(_Common, cls), name))


def _max_of_semaphores():
    from .synchronize import SEM_VALUE_MAX

    return SEM_VALUE_MAX


class Queue(_native.Queue, _Common, std.Queue):
    """A first-in first-out queue of objects that can be pickled."""

    _has_pipe = False
    # What programs find in a queue of the standard library that has no feeder thread yet.
    _ignore_epipe = False  # concurrent.futures sets it
    _joincancelled = False
    _jointhread = None
    _thread = None
    _closed = _Computed(lambda self: self._is_closed())
    _maxsize = _Computed(lambda self: self._capacity() or _max_of_semaphores())

    def __init__(self, maxsize=0, *, ctx):
        if self._has_pipe:
            super(_Common, self).__init__(maxsize, ctx=ctx)
        else:
            self._create(maxsize)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls._feed is not std.Queue._feed or cls._start_thread is not std.Queue._start_thread:
            # A feeder thread of its own (joblib's loky, which pickles in its own way).
            _use_pipe(cls, "put", "get", "put_nowait", "get_nowait", "qsize", "empty", "full")
            _use_pipe(cls, "close", "__getstate__", "__setstate__")
            return
        # Who overrides put or get means the short forms, too.
        for method, short in (("put", "put_nowait"), ("get", "get_nowait")):
            native = getattr(cls, method) is getattr(_native.Queue, method)
            if not native and short not in vars(cls):
                setattr(cls, short, getattr(std.Queue, short))


class JoinableQueue(Queue, std.JoinableQueue):
    """A queue that counts unfinished tasks: `task_done` and `join`."""

    task_done = _native.Queue._task_done
    join = _native.Queue._join

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls._has_pipe:
            _use_pipe(cls, "task_done", "join")


class SimpleQueue(_native.SimpleQueue, _Common, std.SimpleQueue):
    """A queue with nothing but `put`, `get`, `empty` and `close`."""

    _has_pipe = False
    # The standard library's Pool takes it when it ends, lest workers get what it throws away.
    _rlock = functools.cached_property(lambda self: threading.Lock())

    def __init__(self, *, ctx):
        if self._has_pipe:
            super(_Common, self).__init__(ctx=ctx)
        else:
            self._create()

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if not isinstance(cls.__getstate__, types.MethodDescriptorType):
            # It sends the pipe and the locks itself (joblib's loky, which pickles in its own way).
            _use_pipe(cls, "put", "get", "empty", "close", "__getstate__", "__setstate__")
