"""Managers: owners of objects that processes share, in this machine or over a network.

A SyncManager needs no server process for what it hands out by itself: the objects lie in the shared
heap, and each process works on them there. Given an address, an authentication key or another
serializer, it is the standard library's, server and all. Otherwise it starts a server beside the
heap if somebody registered a class, for an `initializer`, and once a `Pool` or the address is asked
for.

    with an address      every object on the server, by the standard library's code
    without              dict, list, Namespace, Value, Array, locks, queues   the shared heap
                         Pool, registered classes                             the server
"""

import os
import threading
import time

from . import _abstract, _native, _proxies, connection, get_context, pool
from ._original import adopt, adopt_seeing, mirror, overlay

std = mirror(globals(), "managers")

_State = std.State
ProcessError = std.ProcessError

# Seconds that a client of a server has for each half of the authentication.
_AUTHENTICATION_LIMIT = 10.0


class _Stranger(connection.Connection):
    """A second connection to a client that may be nobody's; it does not wait long."""

    def __init__(self, conn):
        super().__init__(os.dup(conn.fileno()))
        self._deadline = time.monotonic() + _AUTHENTICATION_LIMIT

    def _recv(self, size):
        return super()._recv(size, read=self._read_in_time)

    def _read_in_time(self, handle, size):
        if not self.poll(max(0, self._deadline - time.monotonic())):
            raise TimeoutError("the client did not authenticate in time")
        return os.read(handle, size)


def _in_time(step):
    def bounded(conn, authkey):
        with _Stranger(conn) as stranger:
            step(stranger, authkey)

    return bounded


class Server(std.Server):
    """The server's process: the standard library's, but a client that keeps silent is let go."""

    def __init__(self, registry, address, authkey, serializer):
        super().__init__(registry, address, authkey, serializer)
        if isinstance(self.address, bytes):
            # No path: a name in no folder, and so without permissions of its own.
            self.address = os.fsdecode(self.address)
            listener = self.listener._listener
            listener._socket = _abstract.Listener(fileno=listener._socket.detach())

    _handle_request = adopt_seeing(
        std.Server._handle_request,
        std,
        __name__,
        connection=overlay(
            connection,
            deliver_challenge=_in_time(connection.deliver_challenge),
            answer_challenge=_in_time(connection.answer_challenge),
        ),
    )


class BaseManager(std.BaseManager):
    """A manager of the classes that are registered with it."""

    _Server = Server
    get_server = adopt(std.BaseManager.get_server, globals())

    def start(self, initializer=None, initargs=()):
        """Start the server process; an `initializer` is called there first."""
        if self._address is None:
            self._address = _abstract.new_address()
        super().start(initializer, initargs)

    def __init__(
        self, address=None, authkey=None, serializer="pickle", ctx=None, *, shutdown_timeout=1.0
    ):
        super().__init__(
            address, authkey, serializer, ctx or get_context(), shutdown_timeout=shutdown_timeout
        )


class _Shutdown:
    """Ends a manager. To be called in the process that started it, once."""

    def __init__(self, manager):
        self._pid = os.getpid()
        self._shared = manager._shared
        self._state = manager._state
        self.server = None

    def __call__(self):
        if self._pid != os.getpid() or self._shared is None:
            return
        self._shared.close()
        self._shared = None
        if self.server is not None:
            self.server()
        self._state.value = _State.SHUTDOWN

    def still_active(self):
        return self._shared is not None


class SyncManager(std.SyncManager, BaseManager):
    """A manager of dicts, lists, locks, queues and whatever else is registered."""

    # The shared half of a manager that has objects in the heap.
    _shared = None
    _process = None

    def __init__(
        self, address=None, authkey=None, serializer="pickle", ctx=None, *, shutdown_timeout=1.0
    ):
        self._has_server_only = address is not None or authkey is not None or serializer != "pickle"
        self._starting = threading.RLock()
        super().__init__(address, authkey, serializer, ctx, shutdown_timeout=shutdown_timeout)

    def connect(self):
        """Connect to the server at the address that the manager was given."""
        self._has_server_only = True
        super().connect()

    def start(self, initializer=None, initargs=()):
        """Start the manager. An `initializer` is for the server process, which is started then."""
        if self._has_server_only or self._state.value != _State.INITIAL:
            super().start(initializer, initargs)
            return
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._shared = _native.Manager()
        self._state.value = _State.STARTED
        self.shutdown = _Shutdown(self)
        # What is registered may be one object for all: then all need the same server.
        if initializer is not None or self._registry_differs():
            self._start_server(initializer, initargs)

    def _registry_differs(self):
        return any(
            _standard_registry.get(name) is not entry for name, entry in self._registry.items()
        )

    def _start_server(self, initializer=None, initargs=()):
        """Start the server process, if there is none yet."""
        with self._starting:
            if self._shared is None or self._process is not None or self._address is not None:
                return
            shutdown = self.shutdown
            self._state.value = _State.INITIAL
            try:
                super().start(initializer, initargs)
                shutdown.server = self.shutdown
            finally:
                self._state.value = _State.STARTED
                self.shutdown = shutdown

    @property
    def address(self):
        """Where the server is; it is started for that."""
        if self._state.value == _State.STARTED:
            self._start_server()
        return self._address

    def _create(self, typeid, /, *args, **kwds):
        if self._state.value == _State.STARTED:
            self._start_server()
        return super()._create(typeid, *args, **kwds)

    def _number_of_objects(self):
        count = 0 if self._shared is None else len(self._shared)
        return count + (0 if self._address is None else super()._number_of_objects())

    def _debug_info(self):
        count = 0 if self._shared is None else len(self._shared)
        lines = [f"  {count} objects in the shared heap"]
        if self._address is not None:
            lines.append(super()._debug_info())
        return "\n".join(lines)


def _from_heap(name, make):
    """Give SyncManager the method `name`, which makes objects in the heap where it can."""
    on_server = getattr(std.SyncManager, name)

    def method(self, /, *args, **kwds):
        if self._has_server_only:
            return on_server(self, *args, **kwds)
        assert self._state.value == _State.STARTED, "server not yet started"
        return make(self, *args, **kwds)

    method.__name__ = name
    method.__qualname__ = f"SyncManager.{name}"
    setattr(SyncManager, name, method)


def _of_type(proxy_type, typeid):
    return lambda manager, *args, **kwds: proxy_type(manager, typeid, *args, **kwds)


_from_heap("dict", _proxies.DictProxy)
_from_heap("list", _proxies.ListProxy)
_from_heap("Namespace", _proxies.NamespaceProxy)
_from_heap("Value", _proxies.ValueProxy)
_from_heap("Array", _proxies.ArrayProxy)
_from_heap("Condition", _proxies.ConditionProxy)
_from_heap("Event", _proxies.EventProxy)
_from_heap("Barrier", _proxies.BarrierProxy)
for _name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore"):
    _from_heap(_name, _of_type(_proxies.AcquirerProxy, _name))
for _name in ("Queue", "JoinableQueue"):
    _from_heap(_name, _of_type(_proxies.QueueProxy, _name))

SyncManager.register("Pool", pool.Pool, std.PoolProxy)
_standard_registry = SyncManager._registry.copy()


class SharedMemoryServer(Server, std.SharedMemoryServer):
    """The server of a SharedMemoryManager."""


class SharedMemoryManager(BaseManager, std.SharedMemoryManager):
    """A manager of named shared memory, which goes with it."""

    _Server = SharedMemoryServer
    get_server = std.SharedMemoryManager.get_server
