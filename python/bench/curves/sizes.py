"""Throughput against the size of a message: queues, pipes, results of a pool."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from bench.crew import Job, span, together
from bench.curve import Curve, Scale
from bench.row import Unit
from bench.rows.pools import end, expect, warm_pool

__all__ = ["CURVES"]

MIB = 1 << 20
SIZES = (8, 64, 512, 4 << 10, 32 << 10, 256 << 10, 2 * MIB, 16 * MIB, 128 * MIB, 256 * MIB)
# A measurement moves as much as this, if that are not too many messages and not too few.
TOTAL, MOST, LEAST = 1 << 30, 50_000, 5


def count_of(size: int) -> int:
    return max(LEAST, min(MOST, TOTAL // size))


def send_all(send: Callable[[Any], None], message: bytes, count: int) -> None:
    for _ in range(count):
        send(message)


def receive_all(receive: Callable[[], Any], size: int, count: int) -> tuple[float, float]:
    """The clock runs from the first message to the last."""
    receive()
    begin = perf_counter()
    for _ in range(count - 1):
        expect(len(receive()) == size)
    return begin, perf_counter()


def through(
    system: Any, send: Callable[[Any], None], receive: Callable[[], Any], size: int
) -> float:
    count, message = count_of(size), b"x" * size
    jobs: list[Job] = [(send_all, (send, message, count)), (receive_all, (receive, size, count))]
    return (count - 1) * size / span(together(system.Process, jobs)[1:])


def queue(system: Any, size: int) -> float:
    shared = system.Queue()
    return through(system, shared.put, shared.get, size)


def pipe(system: Any, size: int) -> float:
    receiving, sending = system.Pipe(duplex=False)
    return through(system, sending.send, receiving.recv, size)


# A worker makes its result once and sends it again and again, so that making is not measured.
_results: dict[int, bytes] = {}


def result_of(size: int) -> bytes:
    if size not in _results:
        _results[size] = b"x" * size
    return _results[size]


def pool(system: Any, size: int) -> float:
    workers, count = warm_pool(system), count_of(size)
    workers.map(result_of, [size] * 4, chunksize=1)
    begin = perf_counter()
    results = workers.map(result_of, [size] * count, chunksize=1)
    took = perf_counter() - begin
    expect(all(len(result) == size for result in results))
    end(workers)
    return count * size / took


CURVES = tuple(
    Curve(name, title, "bytes a message", Scale.BYTES, SIZES, Unit.BYTES_PER_SECOND, needs, measure)
    for name, title, needs, measure in (
        ("queue-size", "Queue, 1 to 1", "Queue", queue),
        ("pipe-size", "Pipe, 1 to 1", "Pipe", pipe),
        ("pool-size", "Pool(2): results of map, one by one", "Pool.map", pool),
    )
)
