"""What users write: checked by `mypy --strict`, and run. See test_types.py."""

import asyncio
from collections.abc import Iterator
from typing import Any, assert_type

import tenfold
from tenfold import Lock, Manager, Process, Queue, WorkerDied, get_context
from tenfold.managers import DictProxy, ListProxy
from tenfold.pool import AsyncResult, Pool
from tenfold.synchronize import Condition


def length(text: str) -> int:
    return len(text)


def repeat(text: str, times: int) -> str:
    return text * times


def texts() -> Iterator[str]:
    yield from ("a", "bb")


def fill(queue: "Queue[int]", shared: "DictProxy[str, int]") -> None:
    queue.put(1)
    queue.put_many([2, 3])
    shared["x"] = 1


def pools() -> None:
    with Pool(2, max_memory=1 << 30) as pool:
        assert_type(pool.map(length, ["a", "bb"], timeout=10), list[int])
        assert_type(pool.starmap(repeat, [("a", 2)], retries=1), list[str])
        assert_type(pool.apply(length, ("a",)), int)
        later = pool.apply_async(length, ("a",), timeout=10, retries=1)
        assert_type(later, AsyncResult[int])
        assert_type(later.get(timeout=10), int)
        assert_type(later.cancel(), bool)
        many = pool.map_async(length, texts())
        assert_type(many.get(), list[int])
        for size in pool.imap(length, texts(), buffersize=10):
            assert_type(size, int)
    with tenfold.Pool(1) as small:
        assert_type(small, Pool)


def wrong(pool: Pool) -> None:
    pool.map(length, [1, 2])  # type: ignore[arg-type]
    pool.apply_async(length, ("a",), callback=fate)  # type: ignore[misc]
    pool.imap(length, texts(), buffer=1)  # type: ignore[call-arg]


async def in_asyncio() -> None:
    with Pool(1) as pool:
        assert_type(await pool.apply_async(length, ("a",)), int)
        async for size in pool.imap_unordered(length, texts()):
            assert_type(size, int)


def queues_and_managers() -> None:
    queue: Queue[int] = Queue()
    with Manager() as manager:
        shared: DictProxy[str, int] = manager.dict()
        process = Process(target=fill, args=(queue, shared))
        process.start()
        process.join()
        assert_type(process.exitcode, int | None)
        assert_type(queue.get(timeout=10), int)
        assert_type(queue.get_many(2, timeout=10), list[int])
        assert_type(shared["x"], int)
        assert_type(shared.items(), list[tuple[str, int]])
        numbers: ListProxy[int] = manager.list([1, 2, 3])
        assert_type(numbers[0], int)
        if shared.get("no"):
            queue.put("text")  # type: ignore[arg-type]


def locks() -> None:
    lock = Lock()
    with lock:
        pass
    assert_type(lock.acquire(timeout=1.0, recover=True), bool)
    lock.release()
    condition: Condition = get_context("fork").Condition()
    with condition:
        assert_type(condition.wait(0.0), bool)


def fate(error: WorkerDied) -> tuple[int, int | None, int | None]:
    return error.index, error.exitcode, error.signal


def values() -> Any:
    number = tenfold.Value("d", 0.0)
    with number.get_lock():
        number.value += 1
    return number.value


if __name__ == "__main__":
    pools()
    asyncio.run(in_asyncio())
    queues_and_managers()
    locks()
    values()
