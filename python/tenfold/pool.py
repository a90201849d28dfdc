"""Pools of worker processes, and of threads.

    map, apply … ─▶ the board (native) ◀─ workers: processes that run `_worker.work`
         │                                    ▲
    results, iterators (native)               │ starts, replaces
         ▲                                    │
         └─ the herald: a thread that     the crew: the workers and the thread that
            runs callbacks, if there      waits for one of them to end
            are any

A pool has no thread that carries tasks or results. A subclass that overrides `_setup_queues`, as
joblib's does, wants the standard library's pool with its queues, and gets it.
"""

import signal

from . import get_context, util
from ._crew import Crew
from ._faults import (  # noqa: F401
    BrokenPool,
    PoolTerminated,
    TaskCancelled,
    TaskTimeout,
    WorkerDied,
)
from ._herald import Herald
from ._native import PoolBoard
from ._original import mirror
from ._results import (  # noqa: F401
    ApplyResult,
    AsyncResult,
    IMapIterator,
    IMapUnorderedIterator,
    MapResult,
)
from ._worker import work

std = mirror(globals(), "pool")
INIT, RUN, CLOSE, TERMINATE = std.INIT, std.RUN, std.CLOSE, std.TERMINATE

# Going through one of these cannot keep anybody waiting.
_AT_HAND = frozenset({list, tuple, range, set, frozenset, dict, str, bytes, bytearray})


class Pool(std.Pool):
    """A pool of worker processes; without a number, one for each processor that we may use.

    With `max_memory`, each worker may have that many bytes of private memory; a task that needs
    more gets a MemoryError.
    """

    # The native half; None in a pool that is the standard library's.
    _board = None

    def __init__(
        self,
        processes=None,
        initializer=None,
        initargs=(),
        maxtasksperchild=None,
        context=None,
        *,
        max_memory=None,
    ):
        if processes is None:
            processes = _processors()
        context = context or get_context()
        if type(self)._setup_queues is not std.Pool._setup_queues:
            super().__init__(processes, initializer, initargs, maxtasksperchild, context)
            return
        self._pool = []
        self._state = INIT
        self._ctx = context
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (
            not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_memory is not None and max_memory <= 0:
            raise ValueError("max_memory must be a positive number of bytes or None")
        self._processes = processes
        self._maxtasksperchild = maxtasksperchild
        self._initializer = initializer
        self._initargs = initargs
        board = PoolBoard()
        board._create(processes)
        self._herald = Herald(board)
        board._employ(self._herald)
        hears_ctrl_c = signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        arguments = (
            board,
            initializer,
            initargs,
            maxtasksperchild or 0,
            max_memory,
            hears_ctrl_c,
        )
        make = _maker(self, arguments)
        method = context.get_start_method()
        self._crew = Crew(board, self._herald, self._pool, processes, make, method)
        self._crew.start()
        self._board = board
        self._terminate = util.Finalize(self, self._crew.terminate, exitpriority=15)
        self._state = RUN

    def _repopulate_pool(self):
        if self._board is None:
            return super()._repopulate_pool()
        return self._crew.fill()

    def apply(self, func, args=(), kwds={}, *, timeout=None, retries=0):  # noqa: B006
        """Return `func(*args, **kwds)`, as a worker has computed it.

        A task that runs longer than `timeout` seconds is killed (`TaskTimeout`); one whose worker
        dies is tried again `retries` times before that is an error (`WorkerDied`).
        """
        if self._board is None:
            return super().apply(func, args, kwds)
        return self.apply_async(func, args, kwds, timeout=timeout, retries=retries).get()

    def apply_async(
        self,
        func,
        args=(),
        kwds={},  # noqa: B006
        callback=None,
        error_callback=None,
        *,
        timeout=None,
        retries=0,
    ):
        """As `apply`, without waiting: returns an AsyncResult."""
        if self._board is None:
            return super().apply_async(func, args, kwds, callback, error_callback)
        if self._state != RUN:
            self._check_running()
        try:
            if type(args) is not tuple:
                args = tuple(args)
            result = self._board.call(ApplyResult, func, args, kwds or None, timeout, retries)
        except Exception as error:
            result = ApplyResult(self, callback, error_callback)
            _not_submitted(result, error, timeout, retries)
        if callback is not None or error_callback is not None:
            result._callback, result._error_callback = callback, error_callback
            result._watch()
        return result

    def map(self, func, iterable, chunksize=None, *, timeout=None, retries=0):
        """Return the list of `func(item)` for each item, in order. Blocks until all are done.

        `timeout` and `retries` are those of each task, as for `apply`.
        """
        if self._board is None:
            return super().map(func, iterable, chunksize)
        return self._map(func, iterable, False, chunksize, timeout, retries, waits=True).get()

    def starmap(self, func, iterable, chunksize=None, *, timeout=None, retries=0):
        """As `map`, with each item unpacked as the function's arguments."""
        if self._board is None:
            return super().starmap(func, iterable, chunksize)
        return self._map(func, iterable, True, chunksize, timeout, retries, waits=True).get()

    def map_async(
        self,
        func,
        iterable,
        chunksize=None,
        callback=None,
        error_callback=None,
        *,
        timeout=None,
        retries=0,
    ):
        """As `map`, without waiting: returns an AsyncResult."""
        if self._board is None:
            return super().map_async(func, iterable, chunksize, callback, error_callback)
        return self._map(
            func, iterable, False, chunksize, timeout, retries, callback, error_callback
        )

    def starmap_async(
        self,
        func,
        iterable,
        chunksize=None,
        callback=None,
        error_callback=None,
        *,
        timeout=None,
        retries=0,
    ):
        """As `starmap`, without waiting: returns an AsyncResult."""
        if self._board is None:
            return super().starmap_async(func, iterable, chunksize, callback, error_callback)
        return self._map(
            func, iterable, True, chunksize, timeout, retries, callback, error_callback
        )

    def _map(
        self,
        func,
        iterable,
        star,
        chunksize,
        timeout,
        retries,
        callback=None,
        error_callback=None,
        waits=False,
    ):
        self._check_running()
        if not hasattr(iterable, "__len__"):
            iterable = list(iterable)
        length = len(iterable)
        exact = chunksize is not None
        if not exact:
            chunksize = -(-length // (self._processes * 4))
        result = MapResult(self, callback, error_callback)
        try:
            # The standard library looks at no item if there is none by the length.
            items = iterable if length else ()
            self._board.map(
                result, func, items, star, length, max(chunksize, 1), exact, waits, timeout, retries
            )
        except Exception as error:
            _not_submitted(result, error, timeout, retries)
        if callback is not None or error_callback is not None:
            result._watch()
        return result

    def imap(self, func, iterable, chunksize=1, *, timeout=None, retries=0, buffersize=None):
        """Return an iterator over `func(item)` for each item, in order, as results arrive.

        Items are read ahead, whether results are asked for or not; with `buffersize`, at most so
        many are read whose results have not been asked for.
        """
        if self._board is None:
            return super().imap(func, iterable, chunksize)
        stream = IMapIterator(self)
        return self._stream(stream, func, iterable, chunksize, timeout, retries, buffersize, True)

    def imap_unordered(
        self, func, iterable, chunksize=1, *, timeout=None, retries=0, buffersize=None
    ):
        """As `imap`, in whatever order results arrive."""
        if self._board is None:
            return super().imap_unordered(func, iterable, chunksize)
        stream = IMapUnorderedIterator(self)
        return self._stream(stream, func, iterable, chunksize, timeout, retries, buffersize, False)

    def _stream(self, stream, func, iterable, chunksize, timeout, retries, buffersize, ordered):
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize!r}")
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be 1+ or None, not {buffersize!r}")
        self._board.stream(stream, func, chunksize, timeout, retries, buffersize, ordered)
        try:
            iterator = iter(iterable)
        except Exception as error:
            stream._complete(error)
            return stream
        at_hand = type(iterable) in _AT_HAND
        if at_hand and stream._feed(iterator, chunksize, False):
            stream._complete()
        else:
            self._crew.feed(stream, iterator, chunksize)
        return stream

    def close(self):
        """Take no further tasks; those that were submitted are finished, then the workers end."""
        if self._board is None:
            super().close()
            return
        util.debug("closing pool")
        if self._state == RUN:
            self._state = CLOSE
            self._crew.close()

    def join(self):
        """Wait until the workers of a closed or terminated pool have ended, callbacks have run."""
        if self._board is None:
            super().join()
            return
        util.debug("joining pool")
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        self._crew.join()


def _processors():
    from ._cpus import available_cpus

    return available_cpus()


def _maker(pool, arguments):
    """Return a function that makes a worker; it does not keep the pool alive."""
    make, context = pool.Process, pool._ctx

    def worker():
        made = make(context, target=work, args=arguments)
        made.name = made.name.replace("Process", "PoolWorker")
        made.daemon = True
        made._is_worker = True
        return made

    return worker


def _not_submitted(result, error, timeout, retries):
    """The error is that of the result, unless what the call itself was given is wrong."""
    asked = timeout is not None or retries
    if asked and isinstance(error, (ValueError, OverflowError)):
        raise error
    result._fail(error)


class ThreadPool(std.ThreadPool, Pool):
    """The same interface with threads: the standard library's."""

    def __init__(self, processes=None, initializer=None, initargs=()):
        # Not std.ThreadPool's: that would fix the start method of multiprocessing's own context.
        Pool.__init__(self, processes, initializer, initargs)
