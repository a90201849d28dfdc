"""Locks, semaphores, conditions, events and barriers."""

from ._original import mirror

std = mirror(globals(), "synchronize")


class SemLock(std.SemLock):
    """What locks and semaphores have in common."""


class Semaphore(std.Semaphore, SemLock):
    """A counter that cannot fall below zero: `acquire` waits for it."""


class BoundedSemaphore(std.BoundedSemaphore, Semaphore):
    """A semaphore that cannot be released above its first value."""


class Lock(std.Lock, SemLock):
    """A lock that any process may release."""


class RLock(std.RLock, SemLock):
    """A lock that its owner may take again, and only its owner may release."""


class Condition(std.Condition):
    """A condition variable: wait under a lock until another process notifies."""


class Event(std.Event):
    """A flag that processes can wait for."""


class Barrier(std.Barrier):
    """A place where so many parties wait for each other."""
