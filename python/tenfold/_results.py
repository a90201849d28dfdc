"""What a pool's calls return: results and iterators, natively, with what only Python needs."""

from ._herald import Arrival, arrival, report
from ._native import PoolResult, PoolStream
from ._original import original

__all__ = ["ApplyResult", "AsyncResult", "IMapIterator", "IMapUnorderedIterator", "MapResult"]

std = original("pool")


class ApplyResult(PoolResult, std.ApplyResult):
    """The outcome of a call, now or later. In asyncio it can be awaited."""

    # Instances that were made natively have no attributes of their own.
    _awaiting = _callback = _error_callback = None

    def __init__(self, pool, callback, error_callback):
        self._herald = pool._herald
        self._callback = callback
        self._error_callback = error_callback

    def _watch(self):
        """Have callbacks called before the result is ready."""
        self._awaiting = []
        self._be_heralded()
        self._herald.add(self)

    def _announce(self):
        """Runs in the herald's thread once the tasks are done."""
        success, value = self._outcome()
        callback = self._callback if success else self._error_callback
        if callback is not None:
            try:
                callback(value)
            except BaseException:
                report()
        self._abandon()

    def _abandon(self):
        """Runs in the herald's thread at last, also if the pool has ended before the tasks."""
        self._tell()
        while self._awaiting:
            self._awaiting.pop()()

    def _when_ready(self, wake):
        if self._awaiting is None:
            self._watch()
        self._awaiting.append(wake)
        if self.ready():
            wake()

    def __await__(self):
        if not self.ready():
            yield from arrival(self._when_ready).__await__()
        return self.get()


AsyncResult = ApplyResult


class MapResult(ApplyResult, std.MapResult):
    """The outcome of a map, now or later."""


class IMapIterator(PoolStream, std.IMapIterator):
    """Results in the order of their inputs. In asyncio, `async for` goes through them."""

    def __init__(self, pool):
        self._herald = pool._herald

    def _when_result(self, wake):
        self._be_heralded()
        self._herald.add(Arrival(self, wake))

    def __aiter__(self):
        return self

    async def __anext__(self):
        while True:
            if not self._is_final():
                await arrival(self._when_result)
            try:
                return self.next(0)
            except StopIteration:
                raise StopAsyncIteration from None
            except _NotYet as error:
                if type(error) is not _NotYet:  # a task's own
                    raise


class IMapUnorderedIterator(IMapIterator, std.IMapUnorderedIterator):
    """Results as they come."""


_NotYet = original("context").TimeoutError
