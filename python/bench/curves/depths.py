"""Dicts of many entries, queues of many messages."""

from collections.abc import Callable
from random import Random
from time import perf_counter
from typing import Any

from bench.crew import clock, span, together
from bench.curve import Curve, Scale
from bench.processes import memory_of, own
from bench.row import Unit

__all__ = ["CURVES"]

DEPTHS = tuple(10**power for power in range(3, 8))
# Entries are put in by so many at once; so many are then set or got, here and there.
BATCH = 10_000
OPERATIONS = 20_000
# So many of a queue's messages are taken at most.
GETS = 100_000


def fill_dict(shared: Any, entries: int) -> None:
    for first in range(0, entries, BATCH):
        shared.update({i: i for i in range(first, min(first + BATCH, entries))})


def set_some(shared: Any, keys: list[int]) -> None:
    for key in keys:
        shared[key] = key


def get_some(shared: Any, keys: list[int]) -> None:
    for key in keys:
        shared[key]


def seconds_each(operate: Callable[[Any, list[int]], None], shared: Any, entries: int) -> float:
    """Seconds for each operation on a dict of so many entries, here and there in it."""
    fill_dict(shared, entries)
    begin, end = clock(operate, shared, Random(1).choices(range(entries), k=OPERATIONS))
    return (end - begin) / OPERATIONS


def dict_set(system: Any, entries: int) -> float:
    manager = system.Manager()
    took = seconds_each(set_some, manager.dict(), entries)
    manager.shutdown()
    return took


def dict_get(system: Any, entries: int) -> float:
    manager = system.Manager()
    took = seconds_each(get_some, manager.dict(), entries)
    manager.shutdown()
    return took


def fill(queue: Any, messages: int) -> None:
    put = queue.put
    for i in range(messages):
        put(i)


def leave(queue: Any) -> None:
    """Nobody will take the rest: do not wait until it has gone through the pipe."""
    queue.cancel_join_thread()
    queue.close()


def queue_put(system: Any, messages: int) -> float:
    queue = system.Queue()
    fill(queue, 1)
    begin, end = clock(fill, queue, messages)
    leave(queue)
    return (end - begin) / messages


def take(queue: Any, messages: int) -> tuple[float, float]:
    """The clock runs from the first message to the last."""
    get = queue.get
    get()
    begin = perf_counter()
    for _ in range(messages - 1):
        get()
    return begin, perf_counter()


def queue_get(system: Any, messages: int) -> float:
    queue, taken = system.Queue(), min(messages, GETS)
    fill(queue, messages)
    times = together(system.Process, [(take, (queue, taken))])
    leave(queue)
    return span(times) / (taken - 1)


def memory() -> int:
    return sum(memory_of(pid) for pid in own())


def queue_memory(system: Any, messages: int) -> float:
    """All processes' memory: the standard library's messages wait in the putting process."""
    queue = system.Queue()
    fill(queue, 1)
    before = memory()
    fill(queue, messages)
    grown = memory() - before
    leave(queue)
    return grown / messages


def own_dict(operate: Callable[[Any, list[int]], None]) -> dict[str, Callable[[int], float]]:
    """What no shared dict can beat: a dict of one process."""
    return {"a plain dict": lambda entries: seconds_each(operate, {}, entries)}


CURVES = (
    *(
        Curve(
            name,
            title,
            "entries",
            Scale.COUNT,
            DEPTHS,
            Unit.SECONDS,
            "Manager.dict",
            measure,
            floors=own_dict(operate),
        )
        for name, title, measure, operate in (
            ("dict-set", "Manager dict: set", dict_set, set_some),
            ("dict-get", "Manager dict: get", dict_get, get_some),
        )
    ),
    *(
        Curve(name, title, "messages queued", Scale.COUNT, DEPTHS, unit, "Queue", measure)
        for name, title, unit, measure in (
            ("queue-put", "Queue: one put", Unit.SECONDS, queue_put),
            ("queue-get", "Queue: one get", Unit.SECONDS, queue_get),
            ("queue-memory", "Queue: memory of one message, an int", Unit.BYTES, queue_memory),
        )
    ),
)
