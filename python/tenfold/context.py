"""Contexts: the factories of everything, bound to a start method, and the Process classes.

A context makes tenfold's objects whether or not `multiprocessing` means tenfold. The start method
is tenfold's own setting; children, authentication keys and finalizers are shared with the standard
library.
"""

import sys

from . import _ctrl_c, _family, process
from ._original import mirror

std = mirror(globals(), "context")


class BaseContext(std.BaseContext):
    """What all contexts have in common."""

    def Manager(self):
        """Return a started manager: an owner of shared dicts, lists, locks and queues."""
        from .managers import SyncManager

        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def Pipe(self, duplex=True):
        """Return both ends of a pipe; without `duplex`, the receiver and the sender."""
        from ._pipe import Pipe

        return Pipe(duplex)

    def Lock(self):
        """Return a lock that processes share."""
        from .synchronize import Lock

        return Lock(ctx=self.get_context())

    def RLock(self):
        """Return a lock that its owner may take again."""
        from .synchronize import RLock

        return RLock(ctx=self.get_context())

    def Condition(self, lock=None):
        """Return a condition variable, on `lock` or on a new RLock."""
        from .synchronize import Condition

        return Condition(lock, ctx=self.get_context())

    def Semaphore(self, value=1):
        """Return a semaphore."""
        from .synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value=1):
        """Return a semaphore that cannot be released above its first value."""
        from .synchronize import BoundedSemaphore

        return BoundedSemaphore(value, ctx=self.get_context())

    def Event(self):
        """Return an event: a flag that processes can wait for."""
        from .synchronize import Event

        return Event(ctx=self.get_context())

    def Barrier(self, parties, action=None, timeout=None):
        """Return a barrier for so many parties."""
        from .synchronize import Barrier

        return Barrier(parties, action, timeout, ctx=self.get_context())

    def Queue(self, maxsize=0):
        """Return a queue; `maxsize` 0 means that it has no bound."""
        from .queues import Queue

        return Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize=0):
        """Return a queue that also has `task_done` and `join`."""
        from .queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self):
        """Return a queue with nothing but `put`, `get`, `empty` and `close`."""
        from .queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def Pool(
        self,
        processes=None,
        initializer=None,
        initargs=(),
        maxtasksperchild=None,
        *,
        max_memory=None,
    ):
        """Return a pool of worker processes."""
        from .pool import Pool

        return Pool(
            processes,
            initializer,
            initargs,
            maxtasksperchild,
            context=self.get_context(),
            max_memory=max_memory,
        )

    def RawValue(self, typecode_or_type, *args):
        """Return a ctypes object in shared memory, without a lock."""
        from .sharedctypes import RawValue

        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type, size_or_initializer):
        """Return a ctypes array in shared memory, without a lock."""
        from .sharedctypes import RawArray

        return RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type, *args, lock=True):
        """Return a ctypes object in shared memory with a lock around it."""
        from .sharedctypes import Value

        return Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    def Array(self, typecode_or_type, size_or_initializer, *, lock=True):
        """Return a ctypes array in shared memory with a lock around it."""
        from .sharedctypes import Array

        return Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context())

    def freeze_support(self):
        """Run the child's part, in a frozen executable that was started as a child."""
        if sys.platform == "win32" and getattr(sys, "frozen", False):
            from .spawn import freeze_support

            freeze_support()

    def set_executable(self, executable):
        """Set the interpreter that `spawn` and `forkserver` start, instead of sys.executable."""
        from .spawn import set_executable

        set_executable(executable)

    def set_forkserver_preload(self, module_names):
        """Name the modules that the fork server imports before it forks."""
        from .forkserver import set_forkserver_preload

        set_forkserver_preload(module_names)

    def get_context(self, method=None):
        """Return the context of a start method, or this one."""
        if method is None:
            return self
        # Looked up each time: joblib and loky put contexts of their own into the table.
        context = _concrete_contexts.get(method)
        if context is None:
            raise ValueError(f"cannot find context for {method!r}")
        context._check_available()
        return context


class BaseProcess(process.BaseProcess):
    """What all our processes have in common."""

    # How it ended, for whoever asks; from its start on.
    _record = None
    # Whether it is a pool's worker.
    _is_worker = False

    def start(self):
        """Start the process; its `run` is called there."""
        current = process.current_process()
        if not current._config.get("tenfold_worker"):
            return super().start()
        # A pool's worker is a daemon and may have children all the same: they go when it goes.
        current._config["daemon"] = False
        try:
            return super().start()
        finally:
            current._config["daemon"] = True

    def _bootstrap(self, parent_sentinel=None):
        # Each function that a child of fork calls costs it some pages, and so does `super`.
        if _ctrl_c.held_back:
            _ctrl_c.hear(self._is_worker)
        # Whatever the program has set it to, as in the standard library.
        _family.settle(bool(self._config.get("daemon")), self._record)
        # The standard library's code sets its own start method, which is ours only with the alias.
        if self._start_method is not None:
            _force_start_method(self._start_method)
        exit_code = process.BaseProcess._bootstrap(self, parent_sentinel)
        _family.leave(exit_code)
        return exit_code


class Process(BaseProcess, std.Process):
    """A process of the start method that is set when it is started."""

    @staticmethod
    def _Popen(process_obj):
        return _default_context.get_context().Process._Popen(process_obj)

    @staticmethod
    def _after_fork():
        return _default_context.get_context().Process._after_fork()


class ForkProcess(BaseProcess, std.ForkProcess):
    """A process that is a copy of its parent."""

    @staticmethod
    def _Popen(process_obj):
        from .popen_fork import Popen

        return Popen(process_obj)

    @staticmethod
    def _after_fork():
        from .popen_fork import after_fork

        after_fork()


class SpawnProcess(BaseProcess, std.SpawnProcess):
    """A process with a fresh interpreter."""

    @staticmethod
    def _Popen(process_obj):
        from .popen_spawn_posix import Popen

        return Popen(process_obj)


class ForkServerProcess(BaseProcess, std.ForkServerProcess):
    """A process that is forked from a server that imported what it will need."""

    @staticmethod
    def _Popen(process_obj):
        from .popen_forkserver import Popen

        return Popen(process_obj)


class DefaultContext(std.DefaultContext, BaseContext):
    """The context behind the functions of the package; its start method can be set once."""

    Process = Process


class ForkContext(std.ForkContext, BaseContext):
    """Everything for the start method `fork`."""

    Process = ForkProcess


class SpawnContext(std.SpawnContext, BaseContext):
    """Everything for the start method `spawn`."""

    Process = SpawnProcess


class ForkServerContext(std.ForkServerContext, BaseContext):
    """Everything for the start method `forkserver`."""

    Process = ForkServerProcess


_concrete_contexts = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}
_default_context = DefaultContext(_concrete_contexts[std._default_context._default_context._name])


def _force_start_method(method):
    _default_context._actual_context = _concrete_contexts[method]
