"""Queues between processes."""

from ._original import mirror

std = mirror(globals(), "queues")


class Queue(std.Queue):
    """A queue of any objects that can be pickled."""


class JoinableQueue(std.JoinableQueue, Queue):
    """A queue that counts unfinished tasks: `task_done` and `join`."""


class SimpleQueue(std.SimpleQueue):
    """A queue with nothing but `put`, `get`, `empty` and `close`."""
