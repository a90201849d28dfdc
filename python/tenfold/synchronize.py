"""Locks, semaphores, conditions, events and barriers.

The native classes do the work; each is also a subclass of the standard library's class of its
name, for isinstance. What is new: after a holder was killed or crashed, exactly one process is told
so, by `OwnerDied` from `acquire` or from a `with` statement.
"""

from . import _native
from ._original import mirror

std = mirror(globals(), "synchronize")

OwnerDied = _native.OwnerDied


class SemLock(std.SemLock):
    """What locks and semaphores have in common."""

    @property
    def _semlock(self):
        """A view for programs that know what is inside the standard library's locks."""
        return _SemLockView(self)


class Semaphore(_native.Semaphore, SemLock, std.Semaphore):
    """A counter that cannot fall below zero: `acquire` waits for it.

    If a process is killed, the permits that its `with` statements hold go back; those that it took
    by `acquire` stay taken.
    """

    def __init__(self, value=1, *, ctx):
        self._create(value)

    def get_value(self):
        """Return how many permits can be taken now."""
        return self._get_value()

    # A semaphore has no holder.
    def _is_mine(self):
        return False

    def _count(self):
        return 0


class BoundedSemaphore(Semaphore, std.BoundedSemaphore):
    """A semaphore that cannot be released above its first value."""

    def __init__(self, value=1, *, ctx):
        self._create(value, value)

    __repr__ = std.BoundedSemaphore.__repr__


class Lock(_native.Lock, SemLock, std.Lock):
    """A lock that any process may release."""

    def __init__(self, *, ctx):
        self._create()

    def _max_value(self):
        return 1


class RLock(_native.RLock, SemLock, std.RLock):
    """A lock that its owner may take again, and only its owner may release."""

    def __init__(self, *, ctx):
        self._create()

    def _max_value(self):
        return 1


class _SemLockView:
    """A lock or semaphore by the names of `_multiprocessing.SemLock`."""

    name = None
    SEM_VALUE_MAX = SEM_VALUE_MAX  # noqa: F821  (mirrored)

    def __init__(self, lock):
        self.acquire = lock.acquire
        self.release = lock.release
        self._is_mine = lock._is_mine
        self._count = lock._count
        self._get_value = lock._get_value
        self._lock = lock

    @property
    def kind(self):
        return RECURSIVE_MUTEX if isinstance(self._lock, RLock) else SEMAPHORE  # noqa: F821

    @property
    def maxvalue(self):
        return self._lock._max_value()

    @property
    def handle(self):
        return self._lock._handle()

    def _is_zero(self):
        return self._get_value() == 0

    def _after_fork(self):
        pass

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, *exc):
        return self._lock.__exit__(*exc)


class Condition(_native.Condition, std.Condition):
    """A condition variable: wait under a lock until another process notifies.

    `notify(n)` wakes exactly those `n` that have waited longest. If `wait` raises, be it
    `OwnerDied` or KeyboardInterrupt, the lock is held again as after any wait. Only a further
    KeyboardInterrupt, on the way back to the lock, leaves it to others.
    """

    def __new__(cls, lock=None, *args, **kwargs):
        if lock is None or isinstance(lock, (_native.Lock, _native.RLock)):
            return super().__new__(cls)
        if isinstance(lock, _native.Semaphore):
            lock = _SemaphoreAsLock(lock)
        # Around a lock of other making: the standard library's own, with semaphores of ours.
        return std.Condition(lock, *args, **kwargs)

    def __init__(self, lock=None, *, ctx):
        self._create(lock or ctx.RLock())
        self._make_methods()

    def __setstate__(self, state):
        super().__setstate__(state)
        self._make_methods()

    def __repr__(self):
        return f"<{type(self).__name__}({self._lock}, {self._waiting()})>"

    # CPython's tests look at the standard library's three semaphores: is nobody forgotten?
    _sleeping_count = property(lambda self: _Reading(self._waiting()))
    _woken_count = _wait_semaphore = property(lambda self: _Reading(0))


class _SemaphoreAsLock:
    """A semaphore of one permit as the lock of a condition.

    A semaphore does not know who took its permit. So whoever waits or notifies is taken to hold it,
    if it is taken at all.
    """

    def __init__(self, semaphore):
        if semaphore.get_value() > 1:
            raise ValueError("a Condition needs a lock, or a semaphore of one permit")
        self._semaphore = semaphore

    @property
    def _semlock(self):
        return self

    def __enter__(self):
        # A wait releases what `with` took, so it is no permit that goes back when this one dies.
        return self._semaphore.acquire()

    def __exit__(self, *exc):
        self._semaphore.release()

    def acquire(self, block=True, timeout=None):
        return self._semaphore.acquire(block, timeout)

    def release(self):
        self._semaphore.release()

    def _is_mine(self):
        return self._semaphore.get_value() == 0

    def _count(self):
        return 1

    def __repr__(self):
        return repr(self._semaphore)


class _Reading:
    """A number that is read like a semaphore's."""

    def __init__(self, value):
        self._value = value

    def get_value(self):
        return self._value


class Event(_native.Event, std.Event):
    """A flag that processes can wait for."""

    def __init__(self, *, ctx):
        self._create()


class Barrier(_native.Barrier, std.Barrier):
    """A place where so many parties wait for each other.

    It breaks if a party that has arrived is killed, or is interrupted while it waits. After an
    interruption the standard library lets the others wait for one party more, for ever if none
    comes.
    """

    def __init__(self, parties, action=None, timeout=None, *, ctx):
        self._create(parties)
        self._action = action
        self._timeout = timeout

    def __getstate__(self):
        return super().__getstate__(), self._action, self._timeout

    def __setstate__(self, state):
        shared, self._action, self._timeout = state
        super().__setstate__(shared)

    def wait(self, timeout=None):
        """Wait until all parties have come; return in which place this one came.

        The last one to come calls `action` before anybody goes on. BrokenBarrierError if `timeout`
        seconds (or those of the barrier itself) are not enough, and if the barrier breaks.
        """
        return self._wait(self._timeout if timeout is None else timeout, self._action)
