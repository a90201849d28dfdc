"""Packages with interfaces of their own, each behind the few names that the rows use.

A pool has `map`, `imap`, `apply`, `apply_async` … of multiprocessing's meaning, as far as the
package can do that, then `close` and `join`. Where a package's own default is one item a message,
`map` without a chunk size gets the chunks that multiprocessing would make.
"""

import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

__all__ = ["FasterFifo", "Futures", "Joblib", "Loky", "Mpire", "Pebble", "Ray", "SharedDict"]


def standard_chunks(count: int, workers: int) -> int:
    """The chunk size of multiprocessing's map."""
    return max(1, -(-count // (4 * workers)))


class Result:
    """A future, with the `get` of an AsyncResult."""

    def __init__(self, future: Any) -> None:
        self._future = future

    def get(self) -> Any:
        return self._future.result()


class Peer:
    """What all of them share: nothing to close."""

    def __init__(self, method: str | None) -> None:
        self.method = method

    def close(self) -> None:
        pass


class ExecutorPool:
    """A pool over an executor of concurrent.futures' kind."""

    def __init__(self, executor: Any, workers: int) -> None:
        self._executor = executor
        self._workers = workers

    def map(
        self, function: Callable[..., Any], items: Sequence[Any], chunksize: int | None = None
    ) -> Any:
        chunksize = chunksize or standard_chunks(len(items), self._workers)
        return list(self._executor.map(function, items, chunksize=chunksize))

    def imap(self, function: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        return iter(self._executor.map(function, items))

    def apply(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        return self._executor.submit(function, *args).result()

    def apply_async(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Result:
        return Result(self._executor.submit(function, *args))

    def close(self) -> None:
        pass

    def join(self) -> None:
        self._executor.shutdown(wait=True)


class Futures(Peer):
    def Pool(self, workers: int) -> ExecutorPool:
        from concurrent.futures import ProcessPoolExecutor

        context = multiprocessing.get_context(self.method or "fork")
        return ExecutorPool(ProcessPoolExecutor(workers, mp_context=context), workers)


class Loky(Peer):
    def Pool(self, workers: int) -> ExecutorPool:
        from loky import ProcessPoolExecutor

        return ExecutorPool(ProcessPoolExecutor(workers), workers)


class JoblibPool:
    """joblib chooses the size of its batches itself, unless it is told."""

    def __init__(self, workers: int) -> None:
        import joblib

        self._joblib = joblib
        self._workers = workers
        self._warm = joblib.Parallel(workers)
        self._warm.__enter__()

    def map(
        self, function: Callable[..., Any], items: Sequence[Any], chunksize: int | None = None
    ) -> Any:
        if chunksize is not None:
            self._warm.batch_size = chunksize
        return list(self._warm(map(self._joblib.delayed(function), items)))

    def imap_unordered(self, function: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        parallel = self._joblib.Parallel(
            self._workers, return_as="generator_unordered", batch_size=1
        )
        return iter(parallel(map(self._joblib.delayed(function), items)))

    def apply(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        return self._warm([self._joblib.delayed(function)(*args)])[0]

    def close(self) -> None:
        self._warm.__exit__(None, None, None)

    def join(self) -> None:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)


class Joblib(Peer):
    def Pool(self, workers: int) -> JoblibPool:
        return JoblibPool(workers)


class MpirePool:
    def __init__(self, workers: int, method: str) -> None:
        from mpire.pool import WorkerPool

        self._pool = WorkerPool(workers, start_method=method, keep_alive=True)
        self._workers = workers

    def map(
        self, function: Callable[..., Any], items: Sequence[Any], chunksize: int | None = None
    ) -> Any:
        chunksize = chunksize or standard_chunks(len(items), self._workers)
        return self._pool.map(function, items, chunk_size=chunksize, concatenate_numpy_output=False)

    # Tuples are unpacked.
    starmap = map

    def imap(self, function: Callable[..., Any], items: Sequence[Any]) -> Any:
        return self._pool.imap(function, items, chunk_size=1)

    def imap_unordered(self, function: Callable[..., Any], items: Sequence[Any]) -> Any:
        return self._pool.imap_unordered(function, items, chunk_size=1)

    def apply(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        return self._pool.apply(function, args)

    def apply_async(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        return self._pool.apply_async(function, args)

    def close(self) -> None:
        pass

    def join(self) -> None:
        self._pool.stop_and_join()


class Mpire(Peer):
    def Pool(self, workers: int) -> MpirePool:
        return MpirePool(workers, self.method or "fork")


class PebblePool:
    def __init__(self, workers: int, method: str) -> None:
        from pebble import ProcessPool

        self._pool = ProcessPool(workers, context=multiprocessing.get_context(method))
        self._workers = workers

    def map(
        self, function: Callable[..., Any], items: Sequence[Any], chunksize: int | None = None
    ) -> Any:
        chunksize = chunksize or standard_chunks(len(items), self._workers)
        return list(self._pool.map(function, items, chunksize=chunksize).result())

    def imap(self, function: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        return iter(self._pool.map(function, items).result())

    def apply(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        return self._pool.schedule(function, args).result()

    def apply_async(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Result:
        return Result(self._pool.schedule(function, args))

    def close(self) -> None:
        self._pool.close()  # type: ignore[no-untyped-call]

    def join(self) -> None:
        self._pool.join()


class Pebble(Peer):
    def Pool(self, workers: int) -> PebblePool:
        return PebblePool(workers, self.method or "fork")


class FasterFifo(Peer):
    """A queue for the processes of multiprocessing."""

    Process = multiprocessing.get_context("fork").Process

    def Queue(self) -> Any:
        from faster_fifo import Queue

        return Queue()

    def large_queue(self, largest: int) -> Any:
        from faster_fifo import Queue

        return Queue(max_size_bytes=2 * largest)


class SharedDict(Peer):
    """A dict for the processes of multiprocessing."""

    Process = multiprocessing.get_context("fork").Process

    class Manager:
        def dict(self) -> Any:
            from UltraDict import UltraDict

            return UltraDict(buffer_size=1 << 20, full_dump_size=1 << 20)

        def shutdown(self) -> None:
            pass


class Ray(Peer):
    """The pool of ray, which has multiprocessing's interface."""

    def __init__(self, method: str | None) -> None:
        import ray

        super().__init__(method)
        self._ray = ray
        # Its workers do not get sys.path.
        os.environ["PYTHONPATH"] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        # Its files, which it leaves behind, into the folder that goes with the measurement.
        os.environ["RAY_TMPDIR"] = tempfile.gettempdir()

    def Pool(self, workers: int) -> Any:
        from ray.util.multiprocessing import Pool

        if not self._ray.is_initialized():
            self._ray.init(
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        return Pool(workers)

    def close(self) -> None:
        self._ray.shutdown()
