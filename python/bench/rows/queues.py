"""Queues and pipes: messages a second, round trips, large messages."""

from collections.abc import Iterable
from time import perf_counter
from typing import Any

import numpy as np

from bench.crew import Job, span, together
from bench.row import Row, Unit

__all__ = ["ROWS"]

MESSAGES = 200_000
TRIPS = 5_000
MIB = 1 << 20


def produce(queue: Any, items: Iterable[Any]) -> None:
    for item in items:
        queue.put(item)


def consume(queue: Any, count: int) -> tuple[float, float]:
    """The clock runs from the first message to the last."""
    queue.get()
    begin = perf_counter()
    for _ in range(count - 1):
        queue.get()
    return begin, perf_counter()


def rate(system: Any, items: Any, pairs: int = 1) -> float:
    queue = system.Queue()
    each = len(items) // pairs
    jobs: list[Job] = [(produce, (queue, items[i * each : (i + 1) * each])) for i in range(pairs)]
    jobs += [(consume, (queue, each)) for _ in range(pairs)]
    times = together(system.Process, jobs)[pairs:]
    return (each - 1) * pairs / span(times)


def ints(system: Any) -> float:
    return rate(system, range(MESSAGES))


def tuples(system: Any) -> float:
    return rate(system, [(i, "text") for i in range(MESSAGES)])


def four_to_four(system: Any) -> float:
    return rate(system, range(MESSAGES), pairs=4)


def answer(receive: Any, send: Any) -> None:
    for _ in range(TRIPS + 100):
        send(receive())


def ask(send: Any, receive: Any) -> float:
    for i in range(100):
        send(i)
        receive()
    begin = perf_counter()
    for i in range(TRIPS):
        send(i)
        receive()
    return (perf_counter() - begin) / TRIPS


def queue_round_trip(system: Any) -> float:
    there, back = system.Queue(), system.Queue()
    seconds: float = together(
        system.Process, [(ask, (there.put, back.get)), (answer, (there.get, back.put))]
    )[0]
    return seconds


def simple_queue_round_trip(system: Any) -> float:
    there, back = system.SimpleQueue(), system.SimpleQueue()
    seconds: float = together(
        system.Process, [(ask, (there.put, back.get)), (answer, (there.get, back.put))]
    )[0]
    return seconds


def pipe_round_trip(system: Any) -> float:
    one, other = system.Pipe()
    seconds: float = together(
        system.Process, [(ask, (one.send, one.recv)), (answer, (other.recv, other.send))]
    )[0]
    return seconds


def consume_bytes(queue: Any, count: int) -> tuple[float, float]:
    queue.get()
    begin = perf_counter()
    for _ in range(count - 1):
        if len(queue.get()) != MIB:
            raise ValueError("not the message that was sent")
    return begin, perf_counter()


def mebibytes(system: Any) -> float:
    queue, count, message = system.large_queue(MIB), 300, bytes(range(256)) * (MIB // 256)
    jobs: list[Job] = [(produce, (queue, [message] * count)), (consume_bytes, (queue, count))]
    return (count - 1) * MIB / span(together(system.Process, jobs)[1:])


def consume_arrays(queue: Any, count: int) -> tuple[float, float]:
    """Every page is read, so that nobody can put off the copy."""
    queue.get()
    begin = perf_counter()
    for _ in range(count - 1):
        if queue.get()[::512].sum() != 8 * MIB // 512:
            raise ValueError("not the array that was sent")
    return begin, perf_counter()


def arrays(system: Any) -> float:
    array, count = np.ones(8 * MIB), 8
    queue = system.large_queue(array.nbytes)
    jobs: list[Job] = [(produce, (queue, [array] * count)), (consume_arrays, (queue, count))]
    return (count - 1) * array.nbytes / span(together(system.Process, jobs)[1:])


def warm_copy() -> float:
    source, target, count = np.ones(8 * MIB), np.ones(8 * MIB), 16
    np.copyto(target, source)
    begin = perf_counter()
    for _ in range(count):
        np.copyto(target, source)
    return count * source.nbytes / (perf_counter() - begin)


ROWS = (
    Row(
        "queue-ints", "Queue of small ints, 1 producer, 1 consumer", Unit.PER_SECOND, "Queue", ints
    ),
    Row("queue-tuples", "Queue of small tuples, 1 to 1", Unit.PER_SECOND, "Queue", tuples),
    Row("queue-4-4", "Queue of small ints, 4 to 4", Unit.PER_SECOND, "Queue", four_to_four),
    Row(
        "queue-round-trip", "round trip through two Queues", Unit.SECONDS, "Queue", queue_round_trip
    ),
    Row(
        "simple-queue-round-trip",
        "round trip, SimpleQueues",
        Unit.SECONDS,
        "SimpleQueue",
        simple_queue_round_trip,
    ),
    Row("pipe-round-trip", "round trip, Pipe", Unit.SECONDS, "Pipe", pipe_round_trip),
    Row("queue-mebibyte", "Queue of 1 MiB bytes", Unit.BYTES_PER_SECOND, "Queue", mebibytes),
    Row(
        "queue-array",
        "Queue of 64 MiB arrays, each page read",
        Unit.BYTES_PER_SECOND,
        "Queue",
        arrays,
        floors={"a copy to warm memory": warm_copy},
    ),
)
