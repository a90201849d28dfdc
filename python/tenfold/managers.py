"""Managers: owners of objects that processes share, in this machine or over a network."""

from . import get_context, pool
from ._original import mirror

std = mirror(globals(), "managers")


class BaseManager(std.BaseManager):
    """A manager of the classes that are registered with it."""

    def __init__(
        self, address=None, authkey=None, serializer="pickle", ctx=None, *, shutdown_timeout=1.0
    ):
        super().__init__(
            address, authkey, serializer, ctx or get_context(), shutdown_timeout=shutdown_timeout
        )


class SyncManager(std.SyncManager, BaseManager):
    """A manager of dicts, lists, locks, queues and whatever else is registered."""


SyncManager.register("Pool", pool.Pool, std.PoolProxy)


class SharedMemoryManager(BaseManager, std.SharedMemoryManager):
    """A manager of named shared memory, which goes with it."""
