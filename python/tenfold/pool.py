"""Pools of worker processes, and of threads."""

from . import get_context
from ._cpus import available_cpus
from ._original import mirror

std = mirror(globals(), "pool")


class Pool(std.Pool):
    """A pool of worker processes; without a number, one for each processor that we may use."""

    def __init__(
        self, processes=None, initializer=None, initargs=(), maxtasksperchild=None, context=None
    ):
        if processes is None:
            processes = available_cpus()
        super().__init__(
            processes, initializer, initargs, maxtasksperchild, context or get_context()
        )


class ThreadPool(std.ThreadPool, Pool):
    """The same interface with threads."""

    def __init__(self, processes=None, initializer=None, initargs=()):
        Pool.__init__(self, processes, initializer, initargs)
